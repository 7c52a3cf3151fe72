//! What all pictures pass, whichever model they are for: limits, memory, decode threads.

use bytes::Bytes;
use caudal_types::Stage;
use caudal_vision::{Canvas, Decoding, Header, InputFormat, Limits, Pixels, Reduction, encode_jpeg, probe};

use crate::{ByteBudget, Call, Decoders, TaskError, memory::Held};

/// A file whose header is read at once, whatever is in it.
const SMALL_FILE: usize = 1 << 20;

/// The way from bytes to a model's input, and back to bytes for pictures that are wanted drawn.
#[derive(Debug, Clone)]
pub struct Pictures {
    decoders: Decoders,
    memory: ByteBudget,
    limits: Limits,
}

impl Pictures {
    /// Decodes on `decoders`, holding at most what `memory` has, pictures within `limits`.
    pub fn new(decoders: Decoders, memory: ByteBudget, limits: Limits) -> Self {
        Self { decoders, memory, limits }
    }

    /// What a picture may be at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Memory for pixels being decoded.
    pub fn memory(&self) -> &ByteBudget {
        &self.memory
    }

    /// The threads that decode.
    pub fn decoders(&self) -> &Decoders {
        &self.decoders
    }

    /// Reads the header of a picture. Large files may have a lot in front of their pixels: these are read on a decode
    /// thread.
    pub(crate) async fn probe(&self, call: &Call, bytes: &Bytes) -> Result<Header, TaskError> {
        let limits = self.limits;
        match bytes.len() <= SMALL_FILE {
            true => Ok(probe(bytes, &limits)?),
            false => {
                let bytes = bytes.clone();
                Ok(self.decoders.run(call, Stage::Decode, move |_| probe(&bytes, &limits)).await??)
            }
        }
    }

    /// Brings the picture to `format`. The pixels at full size live only on the decode thread and only as long as it
    /// takes.
    pub(crate) async fn decode(
        &self,
        call: &Call,
        bytes: &Bytes,
        header: Header,
        format: InputFormat,
    ) -> Result<Canvas, TaskError> {
        let held = self.take(header.decode_bytes).await?;
        let bytes = bytes.clone();
        let work = move |decoder: &mut caudal_vision::Decoder| {
            let reduction = match format.decoding {
                Decoding::Full => Reduction::FULL,
                Decoding::Reduced => Reduction::for_model(&header, &format),
            };
            let canvas = decoder.decode(&bytes, &header, reduction).map(|pixels| Canvas::letterbox(pixels, format));
            decoder.shrink();
            drop(held);
            canvas
        };
        Ok(self.decoders.run(call, Stage::Decode, work).await??)
    }

    /// Lets `paint` make a picture (width, height, three bytes a pixel) of the picture, and writes it as a JPEG.
    pub(crate) async fn draw(
        &self,
        call: &Call,
        bytes: &Bytes,
        header: Header,
        paint: impl FnOnce(Pixels<'_>) -> (usize, usize, Vec<u8>) + Send + 'static,
    ) -> Result<Vec<u8>, TaskError> {
        let (width, height) = header.size();
        // Beside the decoded pixels: the copy that is drawn on, the JPEG being written, a map of classes.
        let held = self.take(header.decode_bytes + u64::from(width) * u64::from(height) * 6).await?;
        let bytes = bytes.clone();
        let work = move |decoder: &mut caudal_vision::Decoder| {
            let drawn = decoder.decode(&bytes, &header, Reduction::FULL).map(paint);
            let jpeg = drawn.and_then(|(width, height, rgb)| encode_jpeg(width, height, &rgb));
            decoder.shrink();
            drop(held);
            jpeg
        };
        Ok(self.decoders.run(call, Stage::Encode, work).await??)
    }

    /// Sets `needed` bytes aside for pixels.
    pub(crate) async fn take(&self, needed: u64) -> Result<Held, TaskError> {
        let limit = self.memory.total();
        self.memory.take(needed).await.map_err(|_| TaskError::PictureOverBudget { needed, limit })
    }
}
