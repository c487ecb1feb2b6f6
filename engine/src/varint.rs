//! Kafka's variable-length integers inside records: zigzag, seven bits a byte, least significant first.
//!
//! An `i32` takes at most 5 bytes and an `i64` at most 10. As in Kafka a longer encoding than needed is accepted and
//! one that runs past its last byte is not.

/// Reads an `i32` and says how many bytes it took; `None` if the bytes end early or it is too long.
pub fn read_i32(bytes: &[u8]) -> Option<(i32, usize)> {
    // Lengths and deltas are mostly one byte.
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((unzigzag_32(u32::from(first)), 1));
    }
    let mut value = u32::from(first & 0x7f);
    for (index, byte) in bytes.iter().enumerate().take(5).skip(1) {
        // Bits past the 32nd of the fifth byte fall away, as they do in Kafka's own reader.
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((unzigzag_32(value), index + 1));
        }
    }
    None
}

/// Reads an `i64` and says how many bytes it took; `None` if the bytes end early or it is too long.
pub fn read_i64(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((unzigzag_64(value), index + 1));
        }
    }
    None
}

pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    let mut rest = zigzag_32(value);
    while rest >= 0x80 {
        out.push(low_byte(u64::from(rest)) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(u64::from(rest)));
}

pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag_64(value);
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

/// How many bytes `write_i32` takes for `value`.
pub fn len_i32(value: i32) -> usize {
    len_of_bits(u64::from(zigzag_32(value)))
}

/// How many bytes `write_i64` takes for `value`.
pub fn len_i64(value: i64) -> usize {
    len_of_bits(zigzag_64(value))
}

fn len_of_bits(value: u64) -> usize {
    // 1..=7 bits take one byte, and so does zero.
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        0x1000_0000..=0x7_ffff_ffff => 5,
        0x8_0000_0000..=0x3ff_ffff_ffff => 6,
        0x400_0000_0000..=0x1_ffff_ffff_ffff => 7,
        0x2_0000_0000_0000..=0xff_ffff_ffff_ffff => 8,
        0x100_0000_0000_0000..=0x7fff_ffff_ffff_ffff => 9,
        0x8000_0000_0000_0000.. => 10,
    }
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag_32(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn unzigzag_64(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back() {
        let mut values = vec![0i64, -1, 1, i64::MIN, i64::MAX, i64::from(i32::MIN), i64::from(i32::MAX)];
        for bit in 0..63 {
            values.extend([1i64 << bit, (1i64 << bit) - 1, -(1i64 << bit), -(1i64 << bit) - 1]);
        }
        for value in values {
            let mut bytes = Vec::new();
            write_i64(&mut bytes, value);
            assert_eq!(bytes.len(), len_i64(value), "{value}");
            assert_eq!(read_i64(&bytes), Some((value, bytes.len())));
            assert_eq!(read_i64(&bytes[..bytes.len() - 1]), None);
            let Ok(narrow) = i32::try_from(value) else { continue };
            let mut bytes = Vec::new();
            write_i32(&mut bytes, narrow);
            assert_eq!(bytes.len(), len_i32(narrow), "{narrow}");
            assert_eq!(read_i32(&bytes), Some((narrow, bytes.len())));
            assert_eq!(read_i32(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn an_endless_varint_is_refused() {
        assert_eq!(read_i32(&[0xff; 5]), None);
        assert_eq!(read_i32(&[0xff; 64]), None);
        assert_eq!(read_i64(&[0xff; 64]), None);
        assert_eq!(read_i32(&[0x80, 0x80, 0x80, 0x80, 0x00]), Some((0, 5)));
        assert_eq!(read_i64(&[]), None);
    }
}
