//! What models are asked to do. The one place to read to follow a request through the house: it takes a seat,
//! is decoded, waits, runs with others, and its answer is read.
//!
//! [`see`](ServedModel::see) takes pictures and says what is on them, [`infer`](ServedModel::infer) takes tensors and
//! gives tensors, [`embed`](ServedModel::embed) takes texts and gives vectors. A [`Catalog`] holds the models that serve; loading one opens it, warms it, measures it and
//! plans how it runs.

mod call;
mod catalog;
mod change;
mod decoders;
mod demand;
mod embed;
mod error;
mod footprint;
pub mod fused;
mod infer;
mod joining;
mod labels;
mod ledger;
mod limit;
mod load;
mod memory;
mod model;
mod models;
mod numbers;
mod operators;
mod picture_model;
mod pictures;
mod plan;
mod prove;
mod recognise;
mod resembles;
mod see;
mod shown;
mod text_model;
pub mod trial;

pub use caudal_batcher::{Policy, QueueDepth, QueueStats, VariableLength};
pub use caudal_engine::{Operator, OperatorProfile, Provider, TensorSpec, without_values};
pub use caudal_vision::{Activation, Detection, Likely, Mask, MaskForm, Thresholds};

pub use call::{Call, within};
pub use catalog::{Catalog, ChangeCounts, ChangeError};
pub use decoders::Decoders;
pub use demand::{Resting, Stay};
pub use embed::{EmbedAsk, Embedded, Text};
pub use error::{ModelError, TaskError};
pub use footprint::{Footprint, resident_bytes};
pub use infer::{InputTensor, OutputTensor, TensorError};
pub use joining::Joining;
pub use load::{Defaults, load, load_version};
pub use memory::{ByteBudget, Held, LargerThanBudget};
pub use model::{Notice, RunsOn, ServedModel, Task};
pub use models::{Entry, Failed, Models, Unavailable};
pub use operators::operators;
pub use picture_model::{Ask, Dropped, Found, Look, PictureModel, Seen, Segment};
pub use pictures::Pictures;
pub use plan::{Measured, RunPlan};
pub use text_model::TextModel;
