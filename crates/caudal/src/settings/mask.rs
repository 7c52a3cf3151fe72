//! Secrets in values that are shown: passwords in addresses are masked, secret settings are named and not shown.

use super::TABLE;

const MASK: &str = "***";
/// Names of query parameters and of words in a connection string whose value is a password.
const SECRETS: [&str; 6] = ["password", "sslpassword", "passwd", "pwd", "token", "secret"];

/// The value of the setting `key`, as it may be shown to people.
pub(crate) fn shown(key: &str, value: &str) -> String {
    match TABLE.iter().find(|entry| entry.name == key).map(|entry| entry.value) {
        Some("SECRET") if !value.is_empty() => "(set)".to_owned(),
        Some("URL") => masked(value),
        _ => value.to_owned(),
    }
}

/// An address, or `key=value` words as PostgreSQL's clients take them, with its passwords masked.
///
/// An address whose password holds `/`, `?` or `@` unescaped loses more than the password, never less.
pub(crate) fn masked(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        let words = address.split_inclusive(char::is_whitespace);
        return if address.contains('=') { words.map(masked_pair).collect() } else { address.to_owned() };
    };
    let (before, query) = match rest.rfind('@') {
        Some(at) => rest[at..].find('?').map_or((rest, ""), |question| rest.split_at(at + question)),
        None => rest.find('?').map_or((rest, ""), |question| rest.split_at(question)),
    };
    let place = match before.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{place}"),
            None => format!("{login}@{place}"),
        },
        None => before.to_owned(),
    };
    let query: String = query.split_inclusive(['?', '&']).map(masked_pair).collect();
    format!("{scheme}://{place}{query}")
}

/// `name=value` with what separates it from the next pair; a password's value is masked.
fn masked_pair(pair: &str) -> String {
    let Some((name, value)) = pair.split_once('=') else { return pair.to_owned() };
    if !SECRETS.contains(&name.trim().to_lowercase().as_str()) {
        return pair.to_owned();
    }
    let end = value.chars().next_back().filter(|end| end.is_whitespace() || *end == '&');
    format!("{name}={MASK}{}", end.map_or_else(String::new, String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_with_a_password_shows_everything_but_the_password() {
        for (address, expected) in [
            ("postgres://user:pa55@db:5432/x?sslmode=disable", "postgres://user:***@db:5432/x?sslmode=disable"),
            ("postgres://user:p/a?s@s@db/x", "postgres://user:***@db/x"),
            ("redis://:pa55@cache:6379/0", "redis://:***@cache:6379/0"),
            ("postgres://user@db/x?password=pa55&host=/run", "postgres://user@db/x?password=***&host=/run"),
            ("host=/run user=u password=pa55 dbname=x", "host=/run user=u password=*** dbname=x"),
            ("http://collector:4318", "http://collector:4318"),
            ("sqlite:///./a.db", "sqlite:///./a.db"),
            ("", ""),
        ] {
            assert_eq!(masked(address), expected);
        }
    }

    #[test]
    fn secret_setting_is_not_shown() {
        assert_eq!(shown("admin_key", "s3cret"), "(set)");
        assert_eq!(shown("admin_key", ""), "");
        assert_eq!(shown("database_url", "postgres://a:b@c/d"), "postgres://a:***@c/d");
        assert_eq!(shown("host", "127.0.0.1"), "127.0.0.1");
    }
}
