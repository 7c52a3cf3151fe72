//! The form of the database, and how older forms become it.

use rusqlite::{Connection, TransactionBehavior};

use super::fault;
use crate::error::StoreError;

/// `caud`: what kind of SQLite file this is.
const APPLICATION: i32 = 0x6361_7564;

/// Each form's changes to the one before. A form that was released is never changed.
const FORMS: [&str; 1] = [include_str!("schema.sql")];

/// Refuses a database that has not the newest form: one that cannot be written cannot be brought to it.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)).map_err(fault)?;
    match found.cmp(&(FORMS.len() as u32)) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(StoreError::Newer { found, known: FORMS.len() as u32 }),
        std::cmp::Ordering::Less => {
            let older = "the database has an older form: open a copy that can be written once with this version";
            Err(StoreError::Unsupported(older))
        }
    }
}

/// Brings the database to the newest form.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let newest = FORMS.len() as u32;
    let form =
        |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    if form(connection).map_err(fault)? == newest {
        return Ok(());
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    // Whoever waited for another process that did it finds it done.
    let found = form(&change).map_err(fault)?;
    if found > newest {
        return Err(StoreError::Newer { found, known: newest });
    }
    for changes in &FORMS[found as usize..] {
        change.execute_batch(changes).map_err(fault)?;
    }
    change.pragma_update(None, "application_id", APPLICATION).map_err(fault)?;
    change.pragma_update(None, "user_version", newest).map_err(fault)?;
    change.commit().map_err(fault)
}
