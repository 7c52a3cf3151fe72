//! `caudal flow validate`.

use std::{path::PathBuf, process::ExitCode};

use caudal_flow::{Finding, Severity};
use clap::ArgMatches;
use serde_json::json;

use super::{CommandError, Opened, Runs, code_of, flows, say, usage};

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Runs::None)?;
    let said = matches.get_many::<String>("pipeline").unwrap_or_default();
    let mut files: Vec<PathBuf> = said.map(|said| opened.file(said)).collect::<Result<_, _>>()?;
    if files.is_empty() {
        files = flows::files(&opened.settings.flow.folder);
    }
    if files.is_empty() {
        return Err(usage(format!("there is no pipeline in {}", opened.settings.flow.folder.display())));
    }
    let (mut all, mut code) = (Vec::new(), 0);
    for file in &files {
        let (findings, wrong) = match opened.read(file) {
            Ok((_, findings)) => (findings, None),
            Err(findings) => {
                let code = code_of(&findings);
                (findings, Some(code))
            }
        };
        let strict = matches.get_flag("strict") && !findings.is_empty();
        // Of several codes, the one of a pipeline that is none.
        code = code.max(wrong.unwrap_or(if strict { super::INVALID } else { 0 }));
        if matches.get_flag("json") {
            all.extend(findings.iter().map(|finding| told(file, finding)));
        } else {
            say::findings(file, &findings);
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let sign = if wrong.is_none() && !strict { "✓" } else { "✗" };
            say::line(&format!("{sign} {}: {errors} errors, {} warnings", file.display(), findings.len() - errors));
        }
    }
    if matches.get_flag("json") {
        say::json(&json!({"valid": code == 0, "findings": all}));
    }
    Ok(ExitCode::from(code))
}

fn told(file: &std::path::Path, finding: &Finding) -> serde_json::Value {
    let mut told = serde_json::to_value(finding).unwrap_or_default();
    if finding.file.is_empty() {
        told["file"] = json!(file.display().to_string());
    }
    told
}
