//! What a model spends its time on, operator by operator.

use caudal_engine::{
    Backend, LoadOptions, OperatorProfile, RunError,
    repository::{FolderError, ModelFolder},
};

use crate::{
    ModelError, ServedModel, Task,
    load::{SENTENCE, WarmUp},
    recognise,
};

/// Opens the file of `model`, which `folder` holds, once more beside those that serve, and runs it `runs` times with an
/// input like that of its warm-up: one row, a sentence, a black picture.
pub fn operators(
    model: &ServedModel,
    folder: &ModelFolder,
    backend: &dyn Backend,
    runs: usize,
) -> Result<OperatorProfile, ModelError> {
    let settings = folder.read_settings().map_err(FolderError::from)?;
    let versions = folder.list_versions().map_err(ModelError::Folder)?;
    let version = versions.into_iter().find(|version| version.number == model.version);
    let gone = || ModelError::Mismatch(folder.name.clone(), format!("its version {} is gone", model.version));
    let file = version.ok_or_else(gone)?.file;
    let options = LoadOptions {
        threads: model.plan().threads,
        provider: model.runs_on.provider,
        precision: settings.precision.unwrap_or_default(),
        optimization: settings.graph_optimization,
    };
    let (shapes, mask) = match &model.task {
        Task::See(seer) => (recognise::warmup_shapes(&model.spec, Some(&seer.format), 1), None),
        Task::Embed(text) => (text.inputs.shapes(1, SENTENCE), text.inputs.mask()),
        Task::Tensors => (recognise::warmup_shapes(&model.spec, None, 1), None),
    };
    let warm = WarmUp::new(&model.spec, folder, mask, model.run_limit);
    let mut run = |instance: &mut dyn caudal_engine::Instance| -> Result<(), RunError> {
        warm.run(instance, &shapes, &mut Vec::new())
    };
    Ok(backend.profile_operators(&file, &options, runs, &mut run)?)
}
