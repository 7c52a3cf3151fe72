//! The form of the database, and how older forms become it.

use deadpool_postgres::{GenericClient, Object};

use super::{fault::fault, rows::value};
use crate::error::StoreError;

/// Each form's changes to the one before. A form that was released is never changed.
const FORMS: [&str; 1] = [include_str!("schema.sql")];

/// Of all the locks of that kind in a database, ours.
const LOCK: &str = "select pg_advisory_xact_lock(hashtext('caudal'), hashtext($1))";

/// `name` as PostgreSQL wants names that could be anything.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Brings `schema`, which is made if it is not there, to the newest form. Of several processes that start at once, one
/// does it.
pub(super) async fn migrate(client: &mut Object, schema: &str) -> Result<(), StoreError> {
    let newest = FORMS.len() as u32;
    if form(client, schema).await? == Some(newest) {
        return Ok(());
    }
    let change = client.transaction().await.map_err(fault)?;
    change.query(LOCK, &[&schema]).await.map_err(fault)?;
    // Whoever waited for another process that did it finds it done.
    let found = form(&change, schema).await?.unwrap_or(0);
    if found > newest {
        return Err(StoreError::Newer { found, known: newest });
    }
    if found == 0 {
        let there = change.query("select from pg_namespace where nspname = $1", &[&schema]).await.map_err(fault)?;
        if there.is_empty() {
            change.batch_execute(&format!("create schema {}", quoted(schema))).await.map_err(fault)?;
        }
        change
            .batch_execute("create table form (form integer not null); insert into form values (0)")
            .await
            .map_err(fault)?;
    }
    for changes in &FORMS[found as usize..] {
        change.batch_execute(changes).await.map_err(fault)?;
    }
    change.execute("update form set form = $1", &[&(newest as i32)]).await.map_err(fault)?;
    change.commit().await.map_err(fault)
}

/// The form that `schema` has, if it has one.
async fn form(client: &impl GenericClient, schema: &str) -> Result<Option<u32>, StoreError> {
    // By the catalogue's tables: names alone are looked up in a memory that may be older than the lock.
    let sql = "select from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where n.nspname = $1 and c.relname = 'form'";
    if client.query(sql, &[&schema]).await.map_err(fault)?.is_empty() {
        return Ok(None);
    }
    let table = format!("{}.form", quoted(schema));
    let found = client.query_one(&format!("select form from {table}"), &[]).await.map_err(fault)?;
    Ok(u32::try_from(value::<i32>(&found, 0)?).ok())
}
