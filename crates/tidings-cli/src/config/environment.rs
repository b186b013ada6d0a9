//! Environment variables that look like settings but are not: a misspelt one would silently have no
//! effect.

use std::env;

use super::settings::SETTINGS;

/// The prefix of our variables.
const PREFIX: &str = "TIDINGS_";
/// Variables other than the settings of `tidings serve`. `tidings run` reads the policy of restarts
/// and passes on the secret of tickets, libraries for applications read the path of the program and
/// whether this is development, and an upgrade sets the last one.
const OTHERS: [&str; 8] = [
    "TIDINGS_CONFIG",
    "TIDINGS_URL",
    "TIDINGS_TOKEN",
    "TIDINGS_TICKET_SECRET",
    "TIDINGS_RESTART",
    "TIDINGS_BIN",
    "TIDINGS_DEV",
    "TIDINGS_PREDECESSOR",
];
/// A name may contain one typo, and one more for each this many letters.
const LETTERS_PER_EDIT: usize = 6;

/// A warning for each variable with our prefix that is no setting. `secret_variables` are those
/// that the configuration file names.
pub(crate) fn unknown_variables(secret_variables: &[&str]) -> Vec<String> {
    warnings(names_in_environment(), |name| secret_variables.contains(&name))
}

/// The same for a command without a configuration file. A variable that it does not know may be
/// meant for the hub, so only names that are close to those of settings count.
pub(crate) fn near_misses() -> Vec<String> {
    warnings(names_in_environment(), |name| nearest(name).is_none())
}

fn names_in_environment() -> impl Iterator<Item = String> {
    env::vars_os().filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.into_string().ok())
}

fn warnings(names: impl Iterator<Item = String>, is_known: impl Fn(&str) -> bool) -> Vec<String> {
    let mut unknown: Vec<String> = names
        .filter(|name| name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)))
        .filter(|name| !settings().any(|known| known == *name))
        .filter(|name| !is_of_kubernetes(name) && !is_known(name))
        .collect();
    unknown.sort();
    let warning = |name: String| match nearest(&name) {
        Some(meant) => format!(
            "the environment variable {name} is not a setting and has no effect: did you mean {meant}?"
        ),
        None => format!(
            "the environment variable {name} is not a setting and has no effect: `tidings serve --help` lists the settings"
        ),
    };
    unknown.into_iter().map(warning).collect()
}

fn settings() -> impl Iterator<Item = String> {
    SETTINGS.iter().map(super::settings::Setting::variable).chain(OTHERS.map(str::to_owned))
}

fn nearest(name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase();
    let edits_max = |known: &str| 1 + (known.len() - PREFIX.len()) / LETTERS_PER_EDIT;
    let distances = settings().map(|known| (strsim::osa_distance(&name, &known), known));
    distances.min().filter(|(edits, known)| *edits <= edits_max(known)).map(|(_, known)| known)
}

/// Kubernetes describes a service called `tidings` or `tidings-…` to every container by variables
/// such as `TIDINGS_SERVICE_HOST` and `TIDINGS_PORT_8080_TCP_ADDR`.
fn is_of_kubernetes(name: &str) -> bool {
    let is_port = |port: &str| {
        let mut parts = port.split('_');
        parts.next().is_some_and(|number| number.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| matches!(protocol, "TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.rsplit_once("_PORT_").is_some_and(|(_, port)| is_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(names: &[&str]) -> Vec<String> {
        warnings(names.iter().map(|name| (*name).to_owned()), |name| name == "TIDINGS_APP_KEY")
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest_setting() {
        for (name, meant) in [
            ("TIDINGS_RETAIN_BYTE", "did you mean TIDINGS_RETAIN_BYTES?"),
            ("TIDINGS_RETAINBYTES", "did you mean TIDINGS_RETAIN_BYTES?"),
            ("tidings_listen", "did you mean TIDINGS_LISTEN?"),
            ("TIDINGS_URI", "did you mean TIDINGS_URL?"),
            ("TIDINGS_TOKNE", "did you mean TIDINGS_TOKEN?"),
            ("TIDINGS_HARTBEAT_SEC", "did you mean TIDINGS_HEARTBEAT_SECS?"),
            ("TIDINGS_TICKET_SECRETS", "did you mean TIDINGS_TICKET_SECRET?"),
            ("TIDINGS_SOMETHING_ELSE", "tidings serve --help"),
        ] {
            let [warning] = &warned(&[name])[..] else { panic!("{name}") };
            assert!(warning.contains(&format!("variable {name} ")) && warning.contains(meant), "{warning}");
        }
    }

    #[test]
    fn settings_and_what_others_set_are_not_warned_about() {
        for setting in SETTINGS {
            assert_eq!(warned(&[&setting.variable()]), [""; 0]);
        }
        let others = [
            "PATH",
            "TIDING_LISTEN",
            "TIDINGS",
            "TIDINGS_TOKEN",
            "TIDINGS_APP_KEY",
            "TIDINGS_TICKET_SECRET",
            "TIDINGS_BIN",
            "TIDINGS_SERVICE_HOST",
            "TIDINGS_SERVICE_PORT",
            "TIDINGS_SERVICE_PORT_HTTP",
            "TIDINGS_PORT",
            "TIDINGS_PORT_8080_TCP",
            "TIDINGS_PORT_8080_TCP_ADDR",
            "TIDINGS_HUB_PORT_8080_TCP_PROTO",
        ];
        assert_eq!(warned(&others), [""; 0]);
    }
}
