//! As much of protobuf's wire format as small messages need that no code is generated for.

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Wire<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Field<'a> {
    /// Takes the next field off `rest`; `None` if it is none.
    pub(super) fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let tag = varint(rest)?;
        let value = match tag & 7 {
            0 => Wire::Varint(varint(rest)?),
            1 => Wire::Double(f64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(rest)?).ok()?;
                Wire::Bytes(take(rest, length)?)
            }
            5 => {
                take(rest, 4)?;
                Wire::Fixed32
            }
            _ => return None,
        };
        Some(Self { number: tag >> 3, value })
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, more) = rest.split_at_checked(length)?;
    *rest = more;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_double(out: &mut Vec<u8>, number: u64, value: f64) {
    put_varint(out, number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}
