//! Variables that Kubernetes and Docker set for a service or a linked container, such as one named `caudal-admin`.
//!
//! A Kubernetes service `caudal-admin` gives every pod of its namespace `CAUDAL_ADMIN_SERVICE_HOST`,
//! `CAUDAL_ADMIN_SERVICE_PORT[_NAME]`, `CAUDAL_ADMIN_PORT=tcp://10.0.0.1:8000`, `CAUDAL_ADMIN_PORT_8000_TCP` and
//! `CAUDAL_ADMIN_PORT_8000_TCP_{PROTO,PORT,ADDR}`; Docker's links give the latter forms, `…_NAME` and `…_ENV_…`. None of
//! them is a setting, though one may have a setting's name.

use std::{collections::BTreeMap, net::IpAddr};

const PREFIX: &str = "CAUDAL_";
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Whether `value` is an address such as `tcp://10.0.0.1:8000`, which no port setting can have.
pub(super) fn is_service_address(value: &str) -> bool {
    value.split_once("://").is_some_and(|(scheme, rest)| {
        PROTOCOLS.contains(&scheme) && rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    })
}

/// Whether the variable `name` is a port setting's by its name and a service's by its value.
pub(super) fn hides_setting(name: &str, value: &str) -> bool {
    (name == "PORT" || name.ends_with("_PORT")) && is_service_address(value)
}

/// Whether Kubernetes or Docker set the variable `name`, which begins with `CAUDAL_`.
pub(super) fn is_injected(name: &str, value: &str, environment: &BTreeMap<String, String>) -> bool {
    name.starts_with(PREFIX) && is_of_service(name, value, environment)
}

/// Whether Kubernetes or Docker set the variable `name` for a service of any name.
pub(super) fn is_of_service(name: &str, value: &str, environment: &BTreeMap<String, String>) -> bool {
    if name.ends_with("_SERVICE_HOST") {
        return value.parse::<IpAddr>().is_ok();
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return value.parse::<u16>().is_ok();
    }
    // Before `_PORT`, with which `_PORT_8000_TCP_PORT` ends too.
    if let Some((_, port)) = name.split_once("_PORT_")
        && is_port_part(port)
    {
        return true;
    }
    if name.ends_with("_PORT") {
        return is_service_address(value);
    }
    is_linked(name, value, environment)
}

/// Whether `part` is `8000_TCP`, `8000_TCP_ADDR` and the like.
fn is_port_part(part: &str) -> bool {
    let words: Vec<&str> = part.split('_').collect();
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let protocol = |word: &str| PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(word));
    match words[..] {
        [port, proto] => number(port) && protocol(proto),
        [port, proto, last] => number(port) && protocol(proto) && ["PROTO", "PORT", "ADDR"].contains(&last),
        _ => false,
    }
}

/// `…_NAME=/web/caudal` and `…_ENV_…`, which stand beside a `…_PORT` with an address.
fn is_linked(name: &str, value: &str, environment: &BTreeMap<String, String>) -> bool {
    let service = match name.rfind("_ENV_") {
        Some(at) => &name[..at],
        None => match name.strip_suffix("_NAME") {
            Some(service) if value.starts_with('/') => service,
            _ => return false,
        },
    };
    environment.get(&format!("{service}_PORT")).is_some_and(|value| is_service_address(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(variables: &[(&str, &str)]) -> Vec<bool> {
        let environment: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        variables.iter().map(|(name, value)| is_injected(name, value, &environment)).collect()
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_recognised() {
        for service in ["CAUDAL", "CAUDAL_ADMIN", "CAUDAL_METRICS_2"] {
            let names: Vec<(String, &str)> = [
                ("SERVICE_HOST", "10.96.0.7"),
                ("SERVICE_PORT", "8000"),
                ("SERVICE_PORT_HTTP", "8000"),
                ("PORT", "tcp://10.96.0.7:8000"),
                ("PORT_8000_TCP", "tcp://10.96.0.7:8000"),
                ("PORT_8000_TCP_PROTO", "tcp"),
                ("PORT_8000_TCP_PORT", "8000"),
                ("PORT_8000_TCP_ADDR", "10.96.0.7"),
                ("PORT_9000_UDP", "udp://[fd00::1]:9000"),
            ]
            .map(|(end, value)| (format!("{service}_{end}"), value))
            .to_vec();
            let variables: Vec<(&str, &str)> = names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            assert_eq!(injected(&variables), [true; 9], "{service}");
        }
    }

    #[test]
    fn variables_of_a_docker_link_are_recognised_beside_its_port() {
        let link =
            [("CAUDAL_PORT", "tcp://172.17.0.5:8000"), ("CAUDAL_NAME", "/web/caudal"), ("CAUDAL_ENV_PATH", "/usr/bin")];
        assert_eq!(injected(&link), [true; 3]);
        assert_eq!(injected(&link[1..]), [false; 2], "without the port they are misspelt settings");
    }

    #[test]
    fn misspelt_setting_is_not_taken_for_a_service() {
        let wrong = [
            ("CAUDAL_PORT", "8000"),
            ("CAUDAL_HTPP_PORT", "8000"),
            ("CAUDAL_SERVICE_HOST", "localhost"),
            ("CAUDAL_SERVICE_PORT", "tcp"),
            ("CAUDAL_PORT_X_TCP", "1"),
            ("CAUDAL_ADMIN_PORT", "http://10.0.0.1:8000"),
        ];
        assert_eq!(injected(&wrong), [false; 6]);
    }

    #[test]
    fn service_address_hides_a_port_setting_alone() {
        assert!(hides_setting("CAUDAL_ADMIN_PORT", "tcp://10.0.0.1:8001"));
        assert!(!hides_setting("CAUDAL_ADMIN_PORT", "8001"));
        assert!(!hides_setting("CAUDAL_OTEL_ENDPOINT", "tcp://10.0.0.1:8001"));
    }
}
