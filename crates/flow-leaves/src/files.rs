//! Files that pipelines may read: those below one folder, which whoever runs the server names, and no others.

use std::{
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use caudal_flow::{Action, Answer, Call, Fault, Registry, Started, StepError, Value, value};
use caudal_types::shorten;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    aside::aside,
    plain::{add, leaf},
};

/// The largest file that is read.
const LARGEST: u64 = 64 << 20;
/// Files that a list holds.
const MOST: usize = 100_000;

const READ: &str = "Returns the bytes of a file: {path: …} below the folder that the server opens for pipelines. The \
                   path is the setting `path` or the input.";
const LIST: &str = "Lists the files below `folder` (default: all) in the folder that the server opens for pipelines, \
                   as {path: …}, sorted by path; with `endings`, only those whose names end so.";

/// The folder below which files may be read, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folder(Option<Arc<Path>>);

impl Folder {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self(folder.map(Into::into))
    }

    /// Where the file or folder of that name lies, links followed.
    fn find(&self, name: &str) -> Result<PathBuf, StepError> {
        let closed = || refused("no folder is opened for pipelines").hint("name one as files in flow.yaml");
        let folder = self
            .0
            .as_deref()
            .ok_or_else(closed)?
            .canonicalize()
            .map_err(|error| gone("the folder for pipelines", &error))?;
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || name.contains('\0') {
            return Err(refused(format!("{:?} is no path below the folder for pipelines", shorten(name))));
        }
        let found = folder.join(name).canonicalize().map_err(|error| gone(&format!("{:?}", shorten(name)), &error))?;
        match found.starts_with(&folder) {
            true => Ok(found),
            false => Err(refused(format!("{:?} leads out of the folder for pipelines", shorten(name)))),
        }
    }

    fn read(&self, name: &str) -> Result<Bytes, StepError> {
        let path = self.find(name)?;
        let unread = |error| gone(&format!("{:?}", shorten(name)), &error);
        // What is no file may keep whoever opens it waiting for ever.
        let about = path.metadata().map_err(unread)?;
        if !about.is_file() || about.len() > LARGEST {
            let message = format!("{:?} is no file of up to {LARGEST} bytes", shorten(name));
            return Err(StepError::input(message).for_good());
        }
        let mut bytes = Vec::with_capacity(about.len() as usize);
        File::open(path).map_err(unread)?.take(LARGEST).read_to_end(&mut bytes).map_err(unread)?;
        Ok(bytes.into())
    }

    async fn bytes(&self, name: &str) -> Result<Bytes, StepError> {
        let (folder, name) = (self.clone(), name.to_owned());
        aside(usize::MAX, move || folder.read(&name)).await
    }

    /// The bytes of a picture: as they are, in Base64, or in a file.
    pub(crate) async fn picture(&self, input: &Value) -> Result<Bytes, StepError> {
        match input {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            Value::Text(text) => {
                let text = Arc::clone(text);
                aside(text.len(), move || decoded(&text)).await
            }
            other => match other.get("path").and_then(Value::as_text) {
                Some(path) => self.bytes(path).await,
                None => {
                    let error = StepError::input(format!(
                        "a picture is bytes, a text in Base64 or a path, not {}",
                        other.sort()
                    ));
                    Err(error.hint("write {path: …} for a file").for_good())
                }
            },
        }
    }

    fn list(&self, name: &str, endings: &[String]) -> Answer {
        let mut found = Vec::new();
        let mut folders = vec![(self.find(name)?, name.trim_matches(['/', '.']).to_owned())];
        while let Some((folder, name)) = folders.pop() {
            let unread = |error| gone(&format!("{:?}", shorten(&name)), &error);
            for entry in folder.read_dir().map_err(unread)? {
                let entry = entry.map_err(unread)?;
                let Ok(own) = entry.file_name().into_string() else { continue };
                let path = if name.is_empty() { own } else { format!("{name}/{own}") };
                match entry.file_type().map_err(unread)? {
                    sort if sort.is_dir() => folders.push((entry.path(), path)),
                    sort if sort.is_file() && fits(&path, endings) => found.push(path),
                    _ => {}
                }
                if found.len() + folders.len() > MOST {
                    return Err(StepError::failed(format!("there are more than {MOST} files"))
                        .hint("name a folder of them")
                        .for_good());
                }
            }
        }
        found.sort();
        Ok(Value::list(found.into_iter().map(|path| value!({"path": path}))))
    }
}

fn fits(path: &str, endings: &[String]) -> bool {
    let path = path.to_lowercase();
    endings.is_empty() || endings.iter().any(|ending| path.ends_with(&ending.to_lowercase()))
}

/// The bytes of a text in Base64, with or without what a data URL has before them.
fn decoded(text: &str) -> Result<Bytes, StepError> {
    let text = text.split_once(";base64,").filter(|(head, _)| head.starts_with("data:")).map_or(text, |(_, rest)| rest);
    BASE64_STANDARD.decode(text.trim()).map(Bytes::from).map_err(|error| {
        let error = StepError::input(format!("a picture as a text is Base64, and this is not: {error}"));
        error.hint("write {path: …} for a file").for_good()
    })
}

fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> StepError {
    StepError::new(Fault::Forbidden, message).hint("write a path below that folder, without ..").for_good()
}

fn gone(what: &str, error: &std::io::Error) -> StepError {
    StepError::input(format!("{what} cannot be read: {}", error.kind())).hint("look whether it is there").for_good()
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    /// The file; default: the input, or its field `path`.
    #[serde(default)]
    path: Option<String>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Listed {
    /// The folder to list; default: all.
    #[serde(default)]
    folder: String,
    /// Endings of file names, such as .jpg; default: any.
    #[serde(default)]
    endings: Vec<String>,
}

/// Adds `read_file` and `list_files`.
pub(crate) fn register(registry: &mut Registry, folder: &Folder) {
    let own = folder.clone();
    let make = move |_: &Value, said| Ok(Files { folder: own.clone(), work: Work::Read(said) });
    add(registry, "read_file", leaf::<Named, _>(READ, make));
    let own = folder.clone();
    let make = move |_: &Value, said| Ok(Files { folder: own.clone(), work: Work::List(said) });
    add(registry, "list_files", leaf::<Listed, _>(LIST, make));
}

struct Files {
    folder: Folder,
    work: Work,
}

enum Work {
    Read(Named),
    List(Listed),
}

impl Action for Files {
    fn identity(&self) -> Value {
        match &self.work {
            Work::Read(Named { path }) => value!(["read_file", path]),
            Work::List(Listed { folder, endings }) => value!(["list_files", folder, endings]),
        }
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move {
            match &self.work {
                Work::Read(Named { path }) => {
                    let asked = path.as_deref().or_else(|| call.input.as_text());
                    let asked = asked.or_else(|| call.input.get("path").and_then(Value::as_text));
                    let unnamed = || StepError::input("nobody says which file").hint("say path").for_good();
                    self.folder.bytes(asked.ok_or_else(unnamed)?).await.map(Value::Bytes)
                }
                Work::List(Listed { folder, endings }) => {
                    let (own, folder, endings) = (self.folder.clone(), folder.clone(), endings.clone());
                    aside(usize::MAX, move || own.list(&folder, &endings)).await
                }
            }
        }))
    }

    /// Files change.
    fn repeatable(&self) -> bool {
        false
    }
}
