//! Names of models in the API's description: where a path takes one, Swagger UI offers those that the server has. They are
//! examples and no list of all values, because models come and go while clients made of the description stay.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use caudal_tasks::Entry;
use serde_json::{Map, Value, json};

use crate::app::App;

/// The names that paths take.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Names {
    all: Vec<String>,
    /// Of models that look at images.
    of_images: Vec<String>,
}

impl Names {
    /// Those that may be asked now, with their aliases.
    fn now(app: &App) -> Self {
        let models = app.catalog.now();
        let mut names = Self::default();
        for (name, entry) in models.entries() {
            let task = match entry {
                Entry::Ready(model) => Some(model.task.name()),
                Entry::Resting(resting) => resting.task(),
                Entry::Failed(_) => continue,
            };
            let own = models.aliases(name).into_iter().chain([name]).map(str::to_owned);
            names.all.extend(own.clone());
            if task.is_some_and(|task| ["detect", "classify", "segment"].contains(&task)) {
                names.of_images.extend(own);
            }
        }
        names
    }

    /// Those that the parameter `model` of `path` takes.
    fn of(&self, path: &str) -> &[String] {
        if path.starts_with("/predict") { &self.of_images } else { &self.all }
    }
}

/// The API's description with the models' names.
pub(super) struct Described {
    without: Value,
    made: Mutex<Option<(Names, Bytes)>>,
}

impl Described {
    /// That of the description `without` names.
    pub(super) fn new(without: Value) -> Self {
        Self { without, made: Mutex::new(None) }
    }

    /// As JSON. It is made when the names are others than the last time.
    pub(super) fn json(&self, app: &App) -> Bytes {
        let names = Names::now(app);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((known, json)) if *known == names => json.clone(),
            _ => {
                let mut document = self.without.clone();
                offer(&mut document, &names);
                let json = Bytes::from(document.to_string());
                *made = Some((names, json.clone()));
                json
            }
        }
    }
}

/// Adds `names` to the parameters of `document` that take one.
fn offer(document: &mut Value, names: &Names) {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths.filter(|(path, _)| path.contains("{model}")) {
        let names = names.of(path);
        if names.is_empty() {
            continue;
        }
        let operations = item.as_object_mut().into_iter().flatten();
        let parameters =
            operations.flat_map(|(_, operation)| operation["parameters"].as_array_mut().into_iter().flatten());
        for parameter in parameters.filter(|parameter| parameter["in"] == "path" && parameter["name"] == "model") {
            let examples: Map<String, Value> =
                names.iter().map(|name| (name.clone(), json!({ "value": name }))).collect();
            parameter["examples"] = Value::Object(examples);
            if let Some(members) = parameter.as_object_mut() {
                // There may be one of both.
                members.remove("example");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_offer_the_names_that_they_take() {
        let mut document = super::super::document_value();
        let names = Names { all: vec!["bus".to_owned(), "words".to_owned()], of_images: vec!["bus".to_owned()] };
        offer(&mut document, &names);
        let parameter = |method: &str, path: &str| document["paths"][path][method]["parameters"][0].clone();
        let predict = parameter("post", "/predict/{model}");
        assert_eq!(predict["examples"], json!({ "bus": { "value": "bus" } }), "{predict}");
        assert_eq!(predict.get("example"), None);
        let infer = parameter("post", "/v2/models/{model}/infer");
        assert_eq!(infer["examples"], json!({ "bus": { "value": "bus" }, "words": { "value": "words" } }), "{infer}");
        let mut without = super::super::document_value();
        offer(&mut without, &Names::default());
        assert_eq!(without, super::super::document_value());
    }
}
