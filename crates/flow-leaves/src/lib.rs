//! Leaves: what steps of pipelines do. Each is a file: the small ones in `builtins`, then the net, language models, and
//! the models of this house.
//!
//! [`register`] puts all of them into a registry. What they need of the world, such as where records are kept or which
//! addresses may be asked, comes in [`Parts`] from whoever runs the server, never from a pipeline. A leaf whose part is
//! missing is there all the same and says what is missing, so a pipeline can be checked where it cannot run.

mod aside;
mod builtins;
mod files;
mod http;
mod llm;
mod models;
mod net;
mod plain;
mod record;
mod reference;
mod script;
mod settings;
mod template;
mod templated;

use std::path::PathBuf;

use caudal_flow::Registry;

use self::files::Folder;

pub use llm::{Llm, Price, Prices, Provider};
pub use models::{Models, Serving};
pub use net::{Allow, BadAllow, BadRoots, Net};
pub use record::Record;
pub use reference::reference;

/// What leaves need of the world.
#[derive(Clone, Default)]
pub struct Parts {
    /// The way out into the net.
    pub net: Net,
    /// The providers of language models.
    pub llm: Llm,
    /// The models of this house.
    pub models: Option<Serving>,
    /// Where events are recorded.
    pub record: Option<Record>,
    /// The folder below which pipelines may read files.
    pub folder: Option<PathBuf>,
}

/// Adds all leaves.
///
/// ```
/// use caudal_flow::{Registry, Undefined, value};
/// use caudal_flow_leaves::{Parts, register};
///
/// let mut registry = Registry::default();
/// register(&mut registry, Parts::default());
/// let leaf = registry.get("to_csv").unwrap();
/// assert!((leaf.make)(&value!({"headers": ["id"]}), Undefined::Strict).is_ok());
/// assert!((leaf.make)(&value!({"haeders": ["id"]}), Undefined::Strict).is_err());
/// ```
pub fn register(registry: &mut Registry, parts: Parts) {
    builtins::register(registry);
    http::register(registry, &parts.net);
    script::register(registry);
    template::register(registry);
    llm::register(registry, &parts.llm, &parts.net);
    let folder = Folder::new(parts.folder);
    files::register(registry, &folder);
    record::register(registry, parts.record.as_ref());
    models::register(registry, parts.models.as_ref(), &folder);
}
