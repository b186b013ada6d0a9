// Checks events with validators, and gives handlers their types. Any library works that implements Standard Schema
// (https://standardschema.dev): Zod, Valibot, ArkType.

import type { Parse } from './types.js';

/** The part of a Standard Schema that is used here. */
export interface Schema<Output = unknown> {
  '~standard': {
    validate(value: unknown): Result<Output> | Promise<Result<Output>>;
    types?: { output: Output } | undefined;
  };
}

type Result<Output> = { value: Output; issues?: undefined } | { issues: readonly { message: string }[] };

/** The type that a schema lets through. */
export type Output<S extends Schema> = NonNullable<S['~standard']['types']>['output'];

/**
 * For the option `parse` of `connect`: data is JSON, and has to be what the schema of its topic says. `*` is the schema of all other
 * topics; without it their events are not valid. What is not valid goes to `onError`, and to no handler.
 */
export function validate<Schemas extends Record<string, Schema<any>>>(schemas: Schemas): Parse<{ [Topic in keyof Schemas]: Output<Schemas[Topic]> }> {
  return (text, topic) => {
    const schema = Object.hasOwn(schemas, topic) ? schemas[topic] : schemas['*'];
    if (!schema) throw new Error(`There is no schema for ${topic}`);
    const result = schema['~standard'].validate(JSON.parse(text));
    // It would change the order of events.
    if (result instanceof Promise) throw new TypeError(`The schema for ${topic} validates asynchronously`);
    if (result.issues) throw new Error(result.issues.map(({ message }) => message).join('; '));
    return result.value;
  };
}
