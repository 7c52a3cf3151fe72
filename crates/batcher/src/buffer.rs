//! Batch buffer: the memory in which the rows of a batch are collected, one growing block per input, reused from run to
//! run.

use caudal_engine::ModelSpec;
use caudal_types::{DType, Shape, TensorView};

/// The alignment that vector instructions prefer; sufficient for any element type.
const BUFFER_ALIGNMENT_BYTES: usize = 64;

/// The inputs of one run, row after row.
#[derive(Debug)]
pub(crate) struct BatchBuffer {
    inputs: Vec<InputBuffer>,
}

#[derive(Debug)]
struct InputBuffer {
    dtype: DType,
    /// The shape of the batch so far; the first dimension grows with each entry.
    shape: Shape,
    row_bytes: usize,
    used: usize,
    memory: Vec<u8>,
    /// Offset of the aligned part in `memory`.
    start: usize,
}

impl BatchBuffer {
    pub(crate) fn new(spec: &ModelSpec) -> Self {
        let block =
            |dtype| InputBuffer { dtype, shape: Shape::new(), row_bytes: 0, used: 0, memory: Vec::new(), start: 0 };
        Self { inputs: spec.inputs.iter().map(|input| block(input.dtype)).collect() }
    }

    /// Empties the buffer for entries with inputs of `shapes`, at most `rows` rows in total; if they differ in length,
    /// the longest is `longest`.
    pub(crate) fn begin_batch(&mut self, shapes: &[Shape], longest: Option<usize>, own_rows: usize, rows: usize) {
        for (block, shape) in self.inputs.iter_mut().zip(shapes) {
            block.shape.clone_from(shape);
            if let (Some(longest), Some(length)) = (longest, block.shape.get_mut(1)) {
                *length = longest;
            }
            let bytes = block.shape.iter().product::<usize>() * block.dtype.size();
            block.row_bytes = bytes / own_rows.max(1);
            block.used = 0;
            block.reserve_bytes(block.row_bytes * rows);
        }
    }

    /// The memory of the next `rows` rows of input `index`. They belong to the batch after [`Self::commit_rows`].
    pub(crate) fn next_rows(&mut self, index: usize, rows: usize) -> &mut [u8] {
        let block = &mut self.inputs[index];
        let from = block.start + block.used;
        &mut block.memory[from..from + block.row_bytes * rows]
    }

    /// Adds the rows that were written last to the batch; rows that are not committed are overwritten by the next ones.
    pub(crate) fn commit_rows(&mut self, rows: usize) {
        for block in &mut self.inputs {
            block.used += block.row_bytes * rows;
        }
    }

    /// The batch as tensors; `rows` becomes the first dimension if rows are joined.
    pub(crate) fn batch_views(&mut self, rows: Option<usize>) -> Vec<TensorView<'_>> {
        self.inputs
            .iter_mut()
            .map(|block| {
                if let (Some(rows), Some(first)) = (rows, block.shape.first_mut()) {
                    *first = rows;
                }
                let bytes = &block.memory[block.start..block.start + block.used];
                TensorView { dtype: block.dtype, shape: &block.shape, bytes }
            })
            .collect()
    }
}

impl InputBuffer {
    fn reserve_bytes(&mut self, bytes: usize) {
        if self.memory.len() < self.start + bytes {
            self.memory = vec![0; bytes + BUFFER_ALIGNMENT_BYTES];
            self.start = self.memory.as_ptr().align_offset(BUFFER_ALIGNMENT_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_engine::{Dim, TensorSpec};

    fn buffer() -> BatchBuffer {
        let dims = vec![Dim::Free("n".to_owned()), Dim::Fixed(2)];
        let inputs = vec![TensorSpec { name: "x".to_owned(), dtype: DType::U16, dims }];
        BatchBuffer::new(&ModelSpec { inputs, ..Default::default() })
    }

    #[test]
    fn rows_are_contiguous_and_uncommitted_ones_are_overwritten() {
        let mut buffer = buffer();
        buffer.begin_batch(&[vec![2, 2]], None, 2, 4);
        buffer.next_rows(0, 2).fill(1);
        buffer.commit_rows(2);
        buffer.next_rows(0, 1).fill(9);
        buffer.next_rows(0, 1).fill(2);
        buffer.commit_rows(1);
        let views = buffer.batch_views(Some(3));
        assert_eq!(views[0].shape, [3, 2]);
        assert_eq!(views[0].bytes, [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]);
    }

    #[test]
    fn memory_is_aligned_and_reused() {
        let mut buffer = buffer();
        buffer.begin_batch(&[vec![1, 2]], None, 1, 100);
        let first = buffer.next_rows(0, 1).as_ptr();
        assert_eq!(first.align_offset(BUFFER_ALIGNMENT_BYTES), 0);
        buffer.begin_batch(&[vec![1, 2]], None, 1, 7);
        assert_eq!(buffer.next_rows(0, 1).as_ptr(), first);
    }
}
