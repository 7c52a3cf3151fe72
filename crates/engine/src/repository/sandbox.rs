//! Nothing that a model names may lie outside its folder.

use std::path::{Component, Path, PathBuf};

/// A path that leaves the model's folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The model file is a link to somewhere else.
    #[error("{0} is a link that leads out of the model's folder")]
    Link(PathBuf),
    /// Weights named by an absolute path or through `..`.
    #[error("the model keeps weights in {0:?}, which is outside its folder")]
    ExternalData(String),
    /// Weights that are not there, or not a plain file.
    #[error("the model keeps weights in {0:?}, which is not a file there")]
    Missing(String),
}

/// Checks that `model` and every file in `external` (named relative to it) truly lie within `folder`.
pub fn check(folder: &Path, model: &Path, external: &[String]) -> Result<(), Forbidden> {
    let inside = |path: &Path| match (path.canonicalize(), folder.canonicalize()) {
        (Ok(real), Ok(folder)) => real.starts_with(folder),
        _ => false,
    };
    if !inside(model) {
        return Err(Forbidden::Link(model.to_owned()));
    }
    let home = model.parent().unwrap_or(folder);
    for name in external {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain {
            return Err(Forbidden::ExternalData(name.clone()));
        }
        let file = home.join(name);
        if !file.is_file() {
            return Err(Forbidden::Missing(name.clone()));
        }
        if !inside(&file) {
            return Err(Forbidden::ExternalData(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir_all(home.path().join("m/1")).unwrap();
            fs::write(home.path().join("m/1/model.onnx"), b"x").unwrap();
            fs::write(home.path().join("m/1/w.bin"), b"x").unwrap();
            fs::write(home.path().join("secret"), b"x").unwrap();
            Self(home)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn check(&self, external: &str) -> Result<(), Forbidden> {
            check(&self.path("m"), &self.path("m/1/model.onnx"), &[external.to_owned()])
        }
    }

    #[test]
    fn weights_beside_the_model_are_fine() {
        assert_eq!(Home::new().check("w.bin"), Ok(()));
        assert_eq!(Home::new().check("./w.bin"), Ok(()));
    }

    #[test]
    fn weights_elsewhere_are_not() {
        let home = Home::new();
        let absolute = home.path("secret").display().to_string();
        for name in ["../../secret", absolute.as_str(), "/etc/passwd"] {
            assert_eq!(home.check(name), Err(Forbidden::ExternalData(name.to_owned())));
        }
        symlink(home.path("secret"), home.path("m/1/link")).unwrap();
        assert_eq!(home.check("link"), Err(Forbidden::ExternalData("link".to_owned())));
        assert_eq!(home.check("nowhere"), Err(Forbidden::Missing("nowhere".to_owned())));
    }

    #[test]
    fn a_model_that_is_a_link_may_stay_inside_only() {
        let home = Home::new();
        fs::create_dir(home.path("m/2")).unwrap();
        symlink(home.path("m/1/model.onnx"), home.path("m/2/model.onnx")).unwrap();
        assert_eq!(check(&home.path("m"), &home.path("m/2/model.onnx"), &[]), Ok(()));
        symlink(home.path("secret"), home.path("m/2/out.onnx")).unwrap();
        let out = home.path("m/2/out.onnx");
        assert_eq!(check(&home.path("m"), &out, &[]), Err(Forbidden::Link(out)));
    }
}
