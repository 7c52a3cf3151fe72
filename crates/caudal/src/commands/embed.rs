//! `caudal embed`: vectors of texts, without a server.

use std::{process::ExitCode, sync::Arc, time::Instant};

use caudal_tasks::{Call, Decoders, EmbedAsk, Stay, Text};
use caudal_types::Explain;
use clap::ArgMatches;
use serde::Serialize;

use super::{CommandError, load};
use crate::{assemble, settings::Load};

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    text: &'a str,
    embedding: &'a [f32],
}

fn other(words: impl Into<String>) -> CommandError {
    CommandError::Other(words.into())
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let mut loaded = load(matches, true)?;
    // Whatever a server would load at start: here a model is there when it is named.
    loaded.settings.load = Load::All;
    loaded.settings.stay = Stay::default();
    let backend = Arc::new(assemble::backend(&loaded.settings)?);
    let catalog = assemble::catalog(&loaded.settings, backend)?;
    let model = match matches.get_one::<String>("model") {
        Some(name) => catalog.get(name, None).map_err(|error| other(format!("{error}; {}", error.hint())))?,
        None => {
            let only = catalog.now().only("embed").and_then(|name| catalog.get(name, None).ok());
            only.ok_or_else(|| other("there is not exactly one model that embeds; name one with --model"))?
        }
    };
    let texts: Vec<&String> = matches.get_many::<String>("texts").unwrap_or_default().collect();
    let words = texts.iter().map(|text| Text::Words((*text).clone())).collect();
    let decoders = Decoders::start(1).map_err(|error| other(error.to_string()))?;
    let ask = EmbedAsk { dimensions: dimensions(matches)?, truncate: matches.get_flag("truncate").then_some(true) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| other(error.to_string()))?;
    let call = Call::new(Instant::now());
    let embedded = runtime.block_on(model.embed(&decoders, words, ask, &call));
    let embedded = embedded.map_err(|error| other(format!("{error}; {}", error.hint())))?;
    for (text, vector) in texts.iter().zip(&embedded.vectors) {
        let line = serde_json::to_string(&Line { model: &model.name, text, embedding: vector });
        println!("{}", line.expect("a vector is plain data"));
    }
    Ok(ExitCode::SUCCESS)
}

fn dimensions(matches: &ArgMatches) -> Result<Option<usize>, CommandError> {
    let Some(text) = matches.get_one::<String>("dimensions") else { return Ok(None) };
    let number = text.parse().ok().filter(|number| *number >= 1);
    number.map(Some).ok_or_else(|| other("--dimensions is a whole number, 1 or more"))
}
