//! Texts in datasets: strings of variable and of fixed length.
// Sound for the reasons that `hdf5.rs` gives.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char},
    ptr,
};

use hdf5_metno_sys::{
    h5::{H5free_memory, hsize_t},
    h5d::{H5D_fill_value_t, H5Dget_create_plist, H5Dget_space, H5Dget_type, H5Dread},
    h5p::{H5Pfill_value_defined, H5Pget_fill_value},
    h5s::{H5S_seloper_t, H5Screate_simple, H5Sselect_hyperslab},
    h5t::{H5T_str_t, H5Tget_size, H5Tget_strpad, H5Tis_variable_str, H5Treclaim},
};

use super::{Class, DEFAULT, Dataset, Failed, Id, Result, alone, done, read::MOST};

impl Dataset {
    /// `count` strings from `start` on, of variable or fixed length. Places that nothing was written to are empty, unless
    /// the dataset has a fill value.
    pub(in super::super) fn strings(&self, start: u64, count: usize) -> Result<Vec<Vec<u8>>> {
        if self.class()? != Class::Text {
            return Err(Failed("a dataset does not hold strings".to_owned()));
        }
        alone(|| unsafe {
            let kind = Id::new(H5Dget_type(self.0.0))?;
            let variable = H5Tis_variable_str(kind.0) > 0;
            let (place, many) = (Id::new(H5Dget_space(self.0.0))?, count as hsize_t);
            let select = H5S_seloper_t::H5S_SELECT_SET;
            done(H5Sselect_hyperslab(place.0, select, &start, ptr::null(), &many, ptr::null()))?;
            let memory = Id::new(H5Screate_simple(1, &many, ptr::null()))?;
            if variable {
                let mut texts: Vec<*mut c_char> = vec![ptr::null_mut(); count];
                done(H5Dread(self.0.0, kind.0, memory.0, place.0, DEFAULT, texts.as_mut_ptr().cast()))?;
                let copies = texts.iter().map(|text| copy(*text)).collect();
                done(H5Treclaim(kind.0, memory.0, DEFAULT, texts.as_mut_ptr().cast()))?;
                return Ok(copies);
            }
            let size = fixed_size(&kind, count)?;
            let mut bytes = vec![0_u8; size * count];
            done(H5Dread(self.0.0, kind.0, memory.0, place.0, DEFAULT, bytes.as_mut_ptr().cast()))?;
            let padding = H5Tget_strpad(kind.0);
            Ok(bytes.chunks(size).map(|text| without_padding(text, padding).to_vec()).collect())
        })
    }

    /// The text that stands in places that nothing was written to, where the dataset's maker has given one.
    pub(in super::super) fn fill_text(&self) -> Result<Option<Vec<u8>>> {
        alone(|| unsafe {
            let (how, kind) = (Id::new(H5Dget_create_plist(self.0.0))?, Id::new(H5Dget_type(self.0.0))?);
            let mut status = H5D_fill_value_t::H5D_FILL_VALUE_DEFAULT;
            done(H5Pfill_value_defined(how.0, &raw mut status))?;
            if status != H5D_fill_value_t::H5D_FILL_VALUE_USER_DEFINED {
                return Ok(None);
            }
            if H5Tis_variable_str(kind.0) > 0 {
                let mut text: *mut c_char = ptr::null_mut();
                done(H5Pget_fill_value(how.0, kind.0, (&raw mut text).cast()))?;
                let found = copy(text);
                done(H5free_memory(text.cast()))?;
                return Ok(Some(found));
            }
            let mut bytes = vec![0_u8; fixed_size(&kind, 1)?];
            done(H5Pget_fill_value(how.0, kind.0, bytes.as_mut_ptr().cast()))?;
            Ok(Some(without_padding(&bytes, H5Tget_strpad(kind.0)).to_vec()))
        })
    }
}

/// What a text of the library says; a NULL is empty.
unsafe fn copy(text: *mut c_char) -> Vec<u8> {
    if text.is_null() { Vec::new() } else { unsafe { CStr::from_ptr(text) }.to_bytes().to_vec() }
}

/// The length of strings of a type of fixed length, of which `count` are to be read.
unsafe fn fixed_size(kind: &Id, count: usize) -> Result<usize> {
    let size = unsafe { H5Tget_size(kind.0) };
    match size == 0 || size.saturating_mul(count) > MOST {
        true => Err(Failed("strings of a length that cannot be".to_owned())),
        false => Ok(size),
    }
}

/// A text of fixed length without what fills it up.
pub(super) fn without_padding(text: &[u8], padding: H5T_str_t) -> &[u8] {
    let until = |pads: &[u8]| text.iter().rposition(|byte| !pads.contains(byte)).map_or(0, |last| last + 1);
    match padding {
        H5T_str_t::H5T_STR_NULLPAD => &text[..until(b"\0")],
        // Places that nothing was written to have zeros here too.
        H5T_str_t::H5T_STR_SPACEPAD => &text[..until(b"\0 ")],
        _ => text.split(|byte| *byte == 0).next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_no_part_of_a_text() {
        let cut = |text: &'static [u8], padding| without_padding(text, padding);
        assert_eq!(cut(b"a\0b\0\0", H5T_str_t::H5T_STR_NULLTERM), b"a");
        assert_eq!(cut(b"a\0b\0\0", H5T_str_t::H5T_STR_NULLPAD), b"a\0b");
        assert_eq!(cut(b" a b  ", H5T_str_t::H5T_STR_SPACEPAD), b" a b");
        for padding in [H5T_str_t::H5T_STR_NULLTERM, H5T_str_t::H5T_STR_NULLPAD, H5T_str_t::H5T_STR_SPACEPAD] {
            assert_eq!(cut(b"\0\0", padding), b"");
        }
    }
}
