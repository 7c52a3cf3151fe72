//! The address of the record's database, in the forms in which SQLAlchemy and others write it.

use super::{Origin, Raw, legacy::Notice, mask};

/// The form that is supported, for messages.
const FORM: &str = "postgres://user:password@host:port/database";

/// What an address asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// PostgreSQL, in the form that its clients take.
    Postgres(String),
    /// SQLite, which the record uses where no address is set.
    Sqlite,
}

/// Reads an address. A driver that SQLAlchemy names behind a plus sign (`postgresql+asyncpg://`) is left out.
pub(super) fn read(address: &str) -> Result<Address, String> {
    let Some((scheme, rest)) = address.split_once("://") else {
        if scheme_of(address) == Some("sqlite") {
            return Ok(Address::Sqlite);
        }
        return checked(address.to_owned());
    };
    let dialect = scheme.split_once('+').map_or(scheme, |(dialect, _)| dialect).to_lowercase();
    match dialect.as_str() {
        "postgres" | "postgresql" => checked(format!("postgres://{rest}")),
        "sqlite" => Ok(Address::Sqlite),
        _ => Err(format!("it is not supported: expected {FORM}, got {scheme}://…")),
    }
}

/// Whether the address comes from `DATABASE_URL`, which many programs read, and so may be meant for another one.
pub(super) fn is_shared(origin: &Origin) -> bool {
    *origin == Origin::Variable("DATABASE_URL".to_owned())
}

/// What is to be said where `DATABASE_URL` is not used.
pub(super) fn notice(values: &[Raw]) -> Option<Notice> {
    let find = |key: &str| values.iter().find(|raw| raw.key == key);
    let address = find("database_url").filter(|raw| is_shared(&raw.origin))?;
    let no_folder = find("data_dir").is_none_or(|raw| raw.value.trim().is_empty());
    let text = match read(address.value.trim()) {
        Ok(Address::Sqlite) => {
            "$DATABASE_URL is not used: it names a SQLite file, and the record is in caudal.db in data_dir; unset it"
        }
        _ if no_folder => {
            "$DATABASE_URL is not used, and nothing is recorded: set data_dir too (the folder for archives, exports and \
             the signing key) to record in that database, or unset it"
        }
        _ => return None,
    };
    Some(Notice { name: "DATABASE_URL".to_owned(), warns: true, text: text.to_owned() })
}

fn scheme_of(address: &str) -> Option<&str> {
    let (scheme, _) = address.split_once(':')?;
    Some(scheme.split_once('+').map_or(scheme, |(dialect, _)| dialect))
}

fn checked(address: String) -> Result<Address, String> {
    match caudal_store::postgres::check_address(&address) {
        Ok(()) => Ok(Address::Postgres(address)),
        Err(why) => Err(format!("it cannot be read ({why}): expected {FORM}, got {}", mask::masked(&address))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_behind_the_dialect_is_left_out() {
        for scheme in ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2", "PostgreSQL+psycopg"] {
            let read = read(&format!("{scheme}://nexus:pw@db:5432/nexus"));
            assert_eq!(read, Ok(Address::Postgres("postgres://nexus:pw@db:5432/nexus".to_owned())), "{scheme}");
        }
        let words = "host=/run/postgresql user=caudal";
        assert_eq!(read(words), Ok(Address::Postgres(words.to_owned())));
    }

    #[test]
    fn sqlite_address_is_recognised_with_and_without_a_driver() {
        for address in ["sqlite:///./app.db", "sqlite+aiosqlite:////data/app.db", "sqlite://", "sqlite:app.db"] {
            assert_eq!(read(address), Ok(Address::Sqlite), "{address}");
        }
    }

    #[test]
    fn unsupported_address_is_refused_without_its_password() {
        for address in ["mysql+pymysql://u:pa55@db/x", "mongodb://u:pa55@db", "postgres://u:pa55@db:port/x"] {
            let why = read(address).unwrap_err();
            assert!(why.contains("expected postgres://user:password@host:port/database"), "{why}");
            assert!(!why.contains("pa55"), "{why}");
        }
    }
}
