// What every bundle of the sources has in common: the package (`build.mjs`), and the script that a hub serves (`tools/page-script.mjs`).

/** Members that no application sees; esbuild shortens them. */
export const PRIVATE_NAMES = /_$/;

/** What browsers have to support. */
export const TARGET = 'es2022';
