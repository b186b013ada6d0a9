"""What schemathesis has to know of the formats of a hub."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def newline_delimited(context, value):
    """A batch of events is text already; everything else that is generated is one line of JSON."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
