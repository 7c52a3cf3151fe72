//! What models are asked to do. The one place to read to follow a request through the house: it takes a seat,
//! is decoded, waits, runs with others, and its answer is read.
//!
//! [`see`](ServedModel::see) takes pictures and says what is on them, [`infer`](ServedModel::infer) takes tensors and
//! gives tensors. A [`Catalog`] holds the models that serve; loading one opens it, warms it, measures it and
//! plans how it runs.

mod call;
mod catalog;
mod decoders;
mod error;
pub mod fused;
mod infer;
mod labels;
mod load;
mod memory;
mod model;
mod picture_model;
mod pictures;
mod plan;
mod recognise;
mod see;

pub use caudal_batcher::{Depth, Stats};
pub use caudal_engine::TensorSpec;
pub use caudal_vision::{Detection, Likely, Mask, MaskForm, Thresholds};

pub use call::{Call, within};
pub use catalog::{Catalog, ChangeError, Entry, Models, Unavailable};
pub use decoders::Decoders;
pub use error::TaskError;
pub use infer::{InputTensor, OutputTensor, TensorError};
pub use load::{Defaults, ModelError, load, load_version};
pub use memory::{ByteBudget, Held, LargerThanBudget};
pub use model::{ServedModel, Task};
pub use picture_model::{Ask, Found, Look, PictureModel, Seen, Segment};
pub use pictures::Pictures;
pub use plan::{Measured, RunPlan};
