import { SCENARIOS, walkFailpoints } from '../support/failpoint-walk.ts';

for (const scenario of SCENARIOS.filter(({ procedure }) => procedure === 'compact')) walkFailpoints(scenario);
