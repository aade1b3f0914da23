/** A view whose code is fetched when it is first looked at. */
import type { ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { messageOf } from '../errors.ts';
import { Failure, Loading } from './common.tsx';

export function lazy<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  return (props) => {
    const [loaded, setLoaded] = useState<{ View: ComponentType<Props> } | { message: string }>();
    useEffect(() => {
      load().then(
        (View) => setLoaded({ View }),
        (error: unknown) => setLoaded({ message: messageOf(error) }),
      );
    }, []);
    if (loaded === undefined) return <Loading rows={1} />;
    if ('message' in loaded) return <Failure error={{ code: 'internal', message: loaded.message }} />;
    return <loaded.View {...props} />;
  };
}
