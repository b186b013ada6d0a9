//! The part of the configuration file that is not settings of the table, by example.

/// For `--help` and for `tidings config init`.
pub(crate) const TABLES: &str = r#"private_topics = ["user-*"]

[[key]]                         # `tidings key new` generates one
name = "app"
secret_env = "APP_KEY"          # or secret, or secret_file
publish = ["*"]
subscribe = ["*"]
admin = false                   # true: may operate the hub; gives no permission on topics
streams_max = 100               # most streams that are open with it; default: no limit

[[issuer]]                      # accept tokens of this issuer; docs/tokens.md has every setting
iss = "https://app.example.com"
audience = "https://hub.example.com/.well-known/mercure"  # default: public_url
algorithms = ["ES256"]          # default: the one that fits each key
subscribe = ["user-*"]          # what its tokens may allow at most; default: "*"
public_key_file = "issuer.pem"  # or secret, secret_env, secret_file, jwks_file, jwks_url

[[issuer.key]]                  # a further key of the same issuer
kid = "2026-12"                 # tokens name it in their header; without it, the key is for every other kid
public_key_file = "next.pem"

[[issuer]]                      # with mercure_revisions = ["1.0", "0.x"]
iss = "symfony"                 # only a name: tokens of that revision state none that counts
revision = "0.x"
secret_env = "MERCURE_JWT_SECRET"

[[ticket_secret]]               # accept tickets, and make them at /tickets
id = "2026-11"                  # `tidings ticket secret` generates one
secret_file = "ticket_secret"   # or secret, secret_env

[[authorize]]                   # the application decides about streams of this path
path = "/events"
url = "http://127.0.0.1:5000/events"
timeout_secs = 10

[[hook]]                        # tell an application who comes to topics and leaves them; docs/presence.md
url = "https://app.example.com/hooks/tidings"
secret_env = "HOOK_SECRET"      # or secret, or secret_file: whsec_ and base64; several while one replaces another
events = ["presence.joined", "presence.left", "topic.occupied", "topic.vacated"]  # default: all
name = "app"                    # by which the store remembers how far it is; default: the host
timeout_secs = 10
allow_http = false              # true: the URL may be without TLS
allow_private = false           # true: it may lead to this machine or a private network

[[certificate]]                 # next to tls_certificate, for further names
certificate_file = "b.pem"
key_file = "b.key"

[acme]                          # obtain a certificate and renew it; docs/acme.md
domains = ["hub.example.com"]   # the names in it
cache = "/var/lib/tidings/acme" # where the account and the certificate are kept
accept_terms = true             # of the authority's service
email = "ops@example.com"       # of the account; default: none
challenge = "tls-alpn-01"       # on port 443; or "http-01", on port 80
directory = "https://acme-v02.api.letsencrypt.org/directory"  # the authority; this is the default
directory_ca = "ca.pem"         # what its server is verified with; default: the certificates of the system
allow_private = false           # true: it may be on this machine or in a private network
profile = "shortlived"          # the kind of certificate, of those that it offers; default: its own

[[retention]]                   # with --store DIR; the first match applies
match = "chat"                  # or pattern = "/rooms/:room", or match = "*"
age = "1h"                      # or bytes = "10MiB", or count = 100, of all matching events
"#;
