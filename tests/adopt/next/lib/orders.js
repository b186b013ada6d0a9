// The orders, in memory; a development server loads this file more than once.

globalThis.orders ??= [];
export const orders = globalThis.orders;
