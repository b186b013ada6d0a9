import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['.cache/', 'adopt/work/'] },
  js.configs.recommended,
  {
    // The functions that are handed to a page run in the browser.
    languageOptions: { globals: { ...globals.node, ...globals.browser } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: { eqeqeq: 'error', 'no-var': 'error', 'prefer-const': 'error', 'object-shorthand': 'error' },
  },
];
