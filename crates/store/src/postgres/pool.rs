//! Connections: how many, how old, and what each is told before it is used.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Status,
};
use tokio::time::timeout;
use tokio_postgres::{
    Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow, Socket, config::SslMode, tls::NoTlsStream,
};

use super::{
    Options,
    fault::{fault, none_free},
    schema::quoted,
};
use crate::error::StoreError;

/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(5);
/// How often connections beyond the usual number are looked for, and how long they must have been idle.
const OVERFLOW_IDLE: Duration = Duration::from_secs(5);

const NO_TLS: &str = "TLS to PostgreSQL is not built in: take a Unix socket, or a network that is yours alone";
const NO_FSYNC: &str = "PostgreSQL runs with fsync = off, so that nothing it acknowledges is on disk: turn it on";
const NO_UTF8: &str = "the database is not in UTF8: make one with `createdb -E UTF8`";

/// What every connection is told. Every statement finds its rows by an index: a plan made while tables were small would
/// read them from end to end when they are large.
const SETTINGS: &str = "set statement_timeout = '30s'; set lock_timeout = '10s';
    set idle_in_transaction_session_timeout = '30s'; set client_min_messages = warning;
    set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;
    set plan_cache_mode = force_generic_plan;
    select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off';
    select current_setting('fsync') as fsync, current_setting('server_encoding') as encoding";

/// Checks that `address` is one that [`super::Options::url`] can have, without connecting to it; says why not.
pub fn check_address(address: &str) -> Result<(), String> {
    parse(address).map(drop)
}

fn parse(address: &str) -> Result<Config, String> {
    let config = address
        .parse::<Config>()
        .map_err(|error| std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("it names no host".to_owned());
    }
    Ok(config)
}

/// The connections.
#[derive(Clone)]
pub(super) struct Connections {
    pool: Pool,
    config: Arc<Config>,
    usual: usize,
    recycle: Duration,
    /// How long it may take until there is a connection: waiting, trying, connecting and logging in together.
    patience: Duration,
}

impl Connections {
    /// None is made yet. There are never fewer than `least`.
    pub(super) fn new(options: &Options, least: usize) -> Result<Self, StoreError> {
        let mut config = parse(&options.url)
            .map_err(|why| StoreError::Unreachable(format!("the database's address cannot be read: {why}")))?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(StoreError::Unsupported(NO_TLS));
        }
        if config.get_application_name().is_none() {
            config.application_name("caudal");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(LOGIN.min(options.pool_timeout));
        }
        let recycling = if options.pre_ping { RecyclingMethod::Verified } else { RecyclingMethod::Fast };
        let own = Arc::new(config.clone());
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: recycling });
        let settings: Arc<str> = format!("set search_path to {}; {SETTINGS}", quoted(&options.schema)).into();
        let (usual, recycle) = (options.pool_size.max(least), options.pool_recycle);
        let young = move |_: &mut ClientWrapper, metrics: &deadpool_postgres::Metrics| match metrics.age() < recycle {
            true => Ok(()),
            false => Err(HookError::message("old")),
        };
        let told = Hook::async_fn(move |client: &mut ClientWrapper, _| {
            let settings = Arc::clone(&settings);
            Box::pin(async move { fit(&client.simple_query(&settings).await.map_err(HookError::Backend)?) })
        });
        let pool = Pool::builder(manager)
            .max_size(options.pool_size.saturating_add(options.max_overflow).max(least))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.pool_timeout))
            .create_timeout(Some(2 * LOGIN))
            .recycle_timeout(Some(LOGIN))
            .pre_recycle(Hook::sync_fn(young))
            .post_create(told)
            .build()
            .map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self { pool, config: own, usual, recycle, patience: options.pool_timeout })
    }

    /// How long it may take until there is a connection.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// A connection that is fit for use, once there is one.
    pub(super) async fn get(&self) -> Result<Object, StoreError> {
        self.get_within(self.patience).await
    }

    /// The same within `time`: whatever takes long, waiting for others, trying old connections or making a new one.
    pub(super) async fn get_within(&self, time: Duration) -> Result<Object, StoreError> {
        match timeout(time, self.pool.get()).await {
            Ok(Err(PoolError::Timeout(_))) | Err(_) => Err(self.none_in_time()),
            Ok(got) => got.map_err(none_free),
        }
    }

    /// Why there was no connection in time.
    fn none_in_time(&self) -> StoreError {
        let (status, seconds) = (self.pool.status(), self.patience.as_secs_f64());
        StoreError::Unreachable(match status.size >= status.max_size && status.available == 0 {
            true => format!("all {} connections to PostgreSQL stayed in use for {seconds} s", status.max_size),
            false => format!("no connection to PostgreSQL within {seconds} s: it does not answer"),
        })
    }

    /// A session beside the pool, and what drives it.
    pub(super) async fn alone(&self) -> Result<(Client, Connection<Socket, NoTlsStream>), StoreError> {
        self.config.connect(NoTls).await.map_err(fault)
    }

    /// Whether a connection that is kept in use has become too old.
    pub(super) fn is_old(&self, connection: &Object) -> bool {
        Object::metrics(connection).age() >= self.recycle
    }

    pub(super) fn status(&self) -> Status {
        self.pool.status()
    }

    /// Closes connections beyond the usual number that nobody has needed for a while.
    pub(super) fn shrink(&self) {
        let mut excess = self.pool.status().size.saturating_sub(self.usual);
        self.pool.retain(|_, metrics| {
            let kept = excess == 0 || metrics.last_used() < OVERFLOW_IDLE;
            excess -= usize::from(!kept);
            kept
        });
    }
}

/// Whether the server that answered so is one that keeps what it is given.
fn fit(answers: &[SimpleQueryMessage]) -> Result<(), HookError> {
    let row = answers.iter().rev().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let is = |name: &str, expected: &str| row.and_then(|row: &SimpleQueryRow| row.get(name)) == Some(expected);
    match (is("fsync", "on"), is("encoding", "UTF8")) {
        (true, true) => Ok(()),
        (false, _) => Err(HookError::message(NO_FSYNC)),
        (true, false) => Err(HookError::message(NO_UTF8)),
    }
}

/// Gives up a connection of which nobody knows in what state it is.
pub(super) fn discard(connection: Object) {
    drop(Object::take(connection));
}
