//! Where answers of steps are remembered beyond this process, if they are.

use std::{path::Path, sync::Arc};

use caudal_flow::{Shelf, ShelfOptions, SqliteShelf};

use super::flows::FILE;
use crate::{private_files, settings::Settings};

/// The shelf that the settings ask for. Without one, pipelines run as well: it is a cache.
pub(crate) fn shelf(settings: &Settings) -> Option<Arc<dyn Shelf>> {
    let bytes = settings.flow.shelf_bytes?;
    let folder = settings.data_dir.clone().unwrap_or_else(caudal_types::cache_dir);
    private_files::create_private(settings);
    private_files::tighten_open(settings, &folder);
    let options = ShelfOptions { about: about(settings), ..ShelfOptions::within(&folder, bytes) };
    match SqliteShelf::open(options) {
        Ok(shelf) => Some(Arc::new(shelf)),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}

/// What answers depend on beside their step: what leaves do in this version, what flow.yaml says of providers and files,
/// and which folders are meant. Whoever changes one of these is answered anew.
fn about(settings: &Settings) -> Vec<u8> {
    let whole =
        |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string().into_encoded_bytes();
    let says = std::fs::read(settings.flow.folder.join(FILE)).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION").as_bytes().to_vec();
    let parts = [version, says, whole(&settings.flow.folder), whole(&settings.model_repository)];
    parts.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes()[..], part].concat()).collect()
}
