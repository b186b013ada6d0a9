import shared from '../../tests/eslint.config.mjs';

// The sources are checked by the compiler, and as what it makes of them.
export default [{ ignores: ['src/', 'test/types.ts'] }, ...shared];
