//! The records field of Produce and Fetch: bytes that `net` carries and never looks into.

use rt::Slice;

/// Record batches, borrowed from a frame or referenced where they lie.
#[derive(Clone, Default)]
pub enum Records<'a> {
    #[default]
    Null,
    /// Inside the frame that was decoded.
    Bytes(&'a [u8]),
    /// In the tail buffers or the read cache; leaves with the frame without being copied.
    Slices(Vec<Slice>),
}

impl Records<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Records::Null)
    }

    /// Bytes in all; 0 for null.
    pub fn len(&self) -> usize {
        self.chunks().map(<[u8]>::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many): (Option<&[u8]>, &[Slice]) = match self {
            Records::Null => (None, &[]),
            Records::Bytes(bytes) => (Some(bytes), &[]),
            Records::Slices(slices) => (None, slices),
        };
        one.into_iter().chain(many.iter().map(|slice| &**slice))
    }

    /// A copy in one piece, for tools and tests.
    pub fn to_vec(&self) -> Vec<u8> {
        self.chunks().flatten().copied().collect()
    }
}

/// Equal content, wherever it lies.
impl PartialEq for Records<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.is_null() == other.is_null()
            && self.len() == other.len()
            && self.chunks().flatten().eq(other.chunks().flatten())
    }
}

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Records::Null => f.write_str("Null"),
            Records::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Records::Slices(slices) => write!(f, "Slices({} in {} bytes)", slices.len(), self.len()),
        }
    }
}
