import { SCENARIOS, walkFailpoints } from '../support/failpoint-walk.ts';

walkFailpoints(SCENARIOS.filter(({ procedure }) => procedure === 'save'));
