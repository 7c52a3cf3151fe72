//! The command that continues a run, as it is printed: with the folders and files that the run had, quoted for a shell.

use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::{Opened, flows};
use crate::{
    cli,
    commands::settings_file,
    settings::{Origin, TABLE, mask},
};

/// What continues the runs of a command.
pub(super) struct Again {
    /// The program and its arguments without the run's name; each word is quoted.
    program: String,
    options: String,
    /// Whether a password has been left out.
    masked: bool,
    /// Whether runs are stored at all.
    stored: bool,
}

impl Again {
    /// For runs of the command line `matches`; `file` is the pipeline's, where one is named.
    pub(super) fn new(matches: &ArgMatches, opened: &Opened, file: Option<&Path>) -> Self {
        let (mut options, mut masked) = (Vec::new(), false);
        if let Some(file) = settings_file(matches) {
            options.extend(["--config".to_owned(), file.display().to_string()]);
        }
        let flags = cli::settings(matches);
        for (key, raw) in TABLE.iter().zip(&opened.raw) {
            let folder = matches!(raw.key, "data_dir" | "pipelines" | "model_repository");
            let named = match &raw.origin {
                Origin::Flag(_) => flags.contains_key(key.name),
                Origin::Variable(_) => folder,
                _ => false,
            };
            if named {
                let value = mask::shown(key.name, &raw.value);
                masked |= value != raw.value;
                options.extend([format!("--{}", key.flag()), value]);
            }
        }
        if let Some(file) = file.filter(|file| !is_in_folder(file, &opened.settings.flow.folder)) {
            options.extend(["--pipeline".to_owned(), file.display().to_string()]);
        }
        let options: String = options.iter().map(|word| format!(" {}", quoted(word))).collect();
        let program = std::env::args().next().unwrap_or_else(|| "caudal".to_owned());
        let stored = opened.store.is_some() && opened.settings.flow.durable;
        Self { program: quoted(&program), options, masked, stored }
    }

    /// Whether a run can be continued by another process.
    pub(super) fn is_stored(&self) -> bool {
        self.stored
    }

    /// The command for the run `id`; `at` is the step that is answered.
    pub(super) fn command(&self, id: &str, at: Option<&str>) -> String {
        let answer = at.map_or_else(String::new, |at| format!(" --at {} --answer …", quoted(at)));
        let note = if self.masked { "  (put the password in place of ***)" } else { "" };
        format!("{} flow resume {}{}{answer}{note}", self.program, quoted(id), self.options)
    }
}

/// Whether a file is one of the folder's pipelines, which are found without naming it.
fn is_in_folder(file: &Path, folder: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().ok();
    let files: Vec<PathBuf> = flows::files(folder).iter().filter_map(|file| whole(file)).collect();
    whole(file).is_some_and(|file| files.contains(&file))
}

/// A word as a POSIX shell reads it back.
pub(super) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_@%+=:,./-".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        for (word, expected) in [
            ("data", "data"),
            ("/srv/caudal-1/a_b.yaml", "/srv/caudal-1/a_b.yaml"),
            ("my data", "'my data'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
            ("señora", "'señora'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
