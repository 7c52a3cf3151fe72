//! Whether rows of several requests may share a run: what a model's file and settings say of it, and what trial runs
//! show.

mod draw;
mod trial;

use std::collections::BTreeSet;

use caudal_engine::{Dim, ModelSpec, TensorSpec, repository::ModelSettings};

pub(crate) use trial::{Bench, try_rows, try_texts};

/// Whether rows of several requests share a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joining {
    /// They do. Trial runs gave each row the same answer alone and with others.
    Joined,
    /// They do, because `batching.join_rows` says so. No trial was made.
    Trusted,
    /// They might and do not, because runs have one row: it is set so, or several save no time. A trial comes before that
    /// changes.
    Untried,
    /// They never do, for this reason.
    Apart(String),
}

impl Joining {
    /// Whether rows of several requests share a run.
    pub fn joins(&self) -> bool {
        matches!(self, Self::Joined | Self::Trusted)
    }

    /// Why rows of several requests do not share a run, if so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Joined | Self::Trusted => None,
            Self::Untried => Some("a run has one row, because it is set so or because several save no time"),
            Self::Apart(reason) => Some(reason),
        }
    }

    /// What the file and the settings say of a model: whether joining its rows is forbidden, trusted, or to be tried.
    /// `texts` says that it is a text encoder, whose first axis is known to count texts.
    ///
    /// Settings can declare that first axes which are free and do not say batch count rows. They cannot do so for an axis
    /// of fixed length, which is an error.
    pub(crate) fn of(spec: &ModelSpec, settings: &ModelSettings, texts: bool) -> Result<Self, String> {
        let batching = &settings.batching;
        let asked = if batching.join_rows == Some(true) {
            Some("batching.join_rows is true")
        } else {
            batching.max_batch_size.is_some_and(|size| size > 1).then_some("batching.max_batch_size is above 1")
        };
        let fixed = |tensor: &&TensorSpec| tensor.dims.first().is_none_or(|dim| dim.fixed_length().is_some());
        if let Some(tensor) = spec.inputs.iter().find(fixed) {
            return match asked {
                Some(said) => Err(format!("{said}, and the first dimension of {tensor} cannot grow")),
                None => Ok(Self::Apart(format!("the first dimension of {tensor} is fixed"))),
            };
        }
        Ok(match batching.join_rows {
            Some(true) => Self::Trusted,
            Some(false) => Self::Apart("batching.join_rows is false".to_owned()),
            None if spec.inputs.is_empty() => Self::Apart("it has no inputs".to_owned()),
            None => match shared_axis(spec) {
                Some(reason) => Self::Apart(reason),
                None if asked.is_some() || texts || spec.has_batch_dimension() => Self::Untried,
                None => Self::Apart(no_batch_axis(spec)),
            },
        })
    }
}

/// Says which later axis carries the name of a first axis, if one does. A value there belongs to two rows.
fn shared_axis(spec: &ModelSpec) -> Option<String> {
    let tensors = || spec.inputs.iter().chain(&spec.outputs);
    let name = |dim: &Dim| match dim {
        Dim::Free(name) if !name.is_empty() => Some(name.clone()),
        _ => None,
    };
    let first: BTreeSet<String> = tensors().filter_map(|tensor| name(tensor.dims.first()?)).collect();
    tensors().find_map(|tensor| {
        let shared = tensor.row_dims().iter().filter_map(name).find(|name| first.contains(name))?;
        Some(format!("the axis {shared:?} counts rows and is also a later axis of {tensor}"))
    })
}

fn no_batch_axis(spec: &ModelSpec) -> String {
    let tensors = spec.inputs.iter().chain(&spec.outputs).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "the first axes do not carry one name that says batch ({tensors}); batching.max_batch_size above 1 declares that they count rows"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_types::DType;

    fn spec(inputs: &[&[&str]], outputs: &[&[&str]]) -> ModelSpec {
        let tensor = |dims: &&[&str]| TensorSpec {
            name: "t".to_owned(),
            dtype: DType::F32,
            dims: dims
                .iter()
                .map(|dim| dim.parse().map_or_else(|_| Dim::Free((*dim).to_owned()), Dim::Fixed))
                .collect(),
        };
        ModelSpec {
            inputs: inputs.iter().map(tensor).collect(),
            outputs: outputs.iter().map(tensor).collect(),
            ..Default::default()
        }
    }

    fn judge(yaml: &str, inputs: &[&[&str]], outputs: &[&[&str]]) -> Result<Joining, String> {
        Joining::of(&spec(inputs, outputs), &ModelSettings::parse(yaml, "model.yaml").unwrap(), false)
    }

    #[test]
    fn rows_along_one_axis_that_says_batch_are_tried() {
        assert_eq!(judge("", &[&["batch", "3"]], &[&["batch", "2"]]), Ok(Joining::Untried));
        assert_eq!(judge("batching: {max_batch_size: 8}", &[&["", "3"]], &[&["", "2"]]), Ok(Joining::Untried));
        assert_eq!(judge("batching: {join_rows: true}", &[&["", "3"]], &[&["", "2"]]), Ok(Joining::Trusted));
    }

    fn check_apart(yaml: &str, inputs: &[&[&str]], outputs: &[&[&str]], words: &str) {
        match judge(yaml, inputs, outputs) {
            Ok(Joining::Apart(reason)) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_that_share_an_axis_are_never_joined_whatever_settings_say() {
        for yaml in ["", "batching: {max_batch_size: 8}"] {
            let words = "\"batch\" counts rows and is also a later axis of t FP32 [batch, batch]";
            check_apart(yaml, &[&["batch", "2"], &["batch", "2"]], &[&["batch", "batch"]], words);
            let towers: (&[&[&str]], &[&[&str]]) = (&[&["images", "2"], &["texts", "2"]], &[&["images", "texts"]]);
            check_apart(yaml, towers.0, towers.1, "\"texts\" counts rows and is also a later axis");
        }
    }

    #[test]
    fn rows_along_axes_that_do_not_say_batch_are_not_joined() {
        check_apart("", &[&["length", "3"]], &[&["length", "3"]], "do not carry one name that says batch");
        check_apart("", &[&["batch", "3"], &["other_batch", "3"]], &[&["batch", "3"]], "do not carry one name");
        check_apart("", &[&["1", "3"]], &[&["1", "3"]], "is fixed");
        check_apart("batching: {join_rows: false}", &[&["batch", "3"]], &[&["batch", "3"]], "join_rows is false");
        let error = judge("batching: {max_batch_size: 4}", &[&["1", "3"]], &[&["1", "3"]]).unwrap_err();
        assert!(error.contains("cannot grow"), "{error}");
    }
}
