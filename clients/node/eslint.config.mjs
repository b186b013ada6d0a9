export { default } from '../../tests/eslint.config.mjs';
