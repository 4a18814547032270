//! Protocol buffers as they lie in a file: one field after the other, and nothing is copied.
//!
//! What a message may hold is known to the caller alone, so it can bound every count before it allocates.

/// That bytes are no protocol buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("a field ends after its message")]
    Truncated,
    #[error("a number of more than 64 bits")]
    Varint,
    #[error("a field number of {0}")]
    Number(u64),
    #[error("a field of wire type {0}")]
    Type(u64),
    #[error("a field of another type than the format has")]
    OtherType,
    #[error("text that is not UTF-8")]
    Text,
    #[error("more than {0} numbers in one field")]
    TooMany(usize),
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(&'a [u8]),
}

/// The fields of a message, by number; it ends after the first error.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), WireError> {
        let key = varint(&mut self.0)?;
        let number = key >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(WireError::Number(number));
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let len = varint(&mut self.0)?;
                let len = usize::try_from(len).map_err(|_| WireError::Truncated)?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                let bytes = self.take(4)?.first_chunk().copied();
                Value::Fixed32(bytes.ok_or(WireError::Truncated)?)
            }
            other => return Err(WireError::Type(other)),
        };
        Ok((number, value))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::OtherType),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Text)
    }

    /// Integers are stored as two's complement of 64 bits.
    pub(super) fn integer(self) -> Result<i64, WireError> {
        match self {
            Self::Varint(value) => Ok(value as i64),
            _ => Err(WireError::OtherType),
        }
    }

    pub(super) fn float(self) -> Result<f32, WireError> {
        match self {
            Self::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(WireError::OtherType),
        }
    }

    /// Appends the integers of a repeated field, packed or one of them; `into` may hold `max`.
    pub(super) fn integers(self, into: &mut Vec<i64>, max: usize) -> Result<(), WireError> {
        let mut push = |value: i64| {
            if into.len() == max {
                return Err(WireError::TooMany(max));
            }
            into.push(value);
            Ok(())
        };
        let Self::Bytes(mut packed) = self else {
            return push(self.integer()?);
        };
        while !packed.is_empty() {
            push(varint(&mut packed)? as i64)?;
        }
        Ok(())
    }

    /// As [`Value::integers`].
    pub(super) fn floats(self, into: &mut Vec<f32>, max: usize) -> Result<(), WireError> {
        let (values, rest) = match &self {
            Self::Bytes(packed) => packed.as_chunks::<4>(),
            Self::Fixed32(bytes) => (std::slice::from_ref(bytes), [].as_slice()),
            _ => return Err(WireError::OtherType),
        };
        if !rest.is_empty() {
            return Err(WireError::Truncated);
        }
        if values.len() > max - into.len() {
            return Err(WireError::TooMany(max));
        }
        into.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(WireError::Truncated)?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return Err(WireError::Varint);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError::Varint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_cut_ones_refused() {
        // Field 1: 300; field 2: "ab"; field 3: 1.0.
        let message = [8, 0xac, 2, 18, 2, b'a', b'b', 29, 0, 0, 0x80, 0x3f];
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Varint(300)));
        assert_eq!(fields[1].1.text(), Ok("ab"));
        assert_eq!(fields[2].1.float(), Ok(1.0));
        for end in [1, 2, 4, 5, 6, 8, 11] {
            let last = Fields::of(&message[..end]).last().unwrap();
            assert_eq!(last, Err(WireError::Truncated), "{end}");
        }
        let endless = [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(Fields::of(&endless).last(), Some(Err(WireError::Varint)));
        assert_eq!(Fields::of(&[3]).last(), Some(Err(WireError::Number(0))));
        assert_eq!(Fields::of(&[11]).last(), Some(Err(WireError::Type(3))));
    }

    #[test]
    fn numbers_come_packed_or_alone_and_are_counted() {
        let mut numbers = vec![];
        Value::Bytes(&[1, 0xac, 2])
            .integers(&mut numbers, 3)
            .unwrap();
        Value::Varint(u64::MAX).integers(&mut numbers, 3).unwrap();
        assert_eq!(numbers, [1, 300, -1]);
        let more = Value::Varint(1).integers(&mut numbers, 3);
        assert_eq!(more, Err(WireError::TooMany(3)));
        let mut floats = vec![];
        Value::Bytes(&[0, 0, 0x80, 0x3f])
            .floats(&mut floats, 2)
            .unwrap();
        Value::Fixed32([0; 4]).floats(&mut floats, 2).unwrap();
        assert_eq!(floats, [1.0, 0.0]);
        let more = Value::Bytes(&[0; 4]).floats(&mut floats, 2);
        assert_eq!(more, Err(WireError::TooMany(2)));
        let cut = Value::Bytes(&[0; 3]).floats(&mut vec![], 2);
        assert_eq!(cut, Err(WireError::Truncated));
    }
}
