//! Fields: how each type is read and written. Lengths are checked against what is there before
//! anything is allocated.

/// Bytes that are no such record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They end within the field.
    #[error("the bytes end within a field")]
    Short,
    /// A length below -1, or beyond the bytes that are there.
    #[error("a length of {0} that can't be")]
    Length(i32),
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// A kind of record that nobody knows.
    #[error("a record of unknown kind {0}")]
    Kind(i32),
    /// More bytes than the record has.
    #[error("{0} bytes behind the record")]
    Behind(usize),
}

/// Reads fields from bytes that it borrows from.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`Error::Short`] if there are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(Error::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Error::Short)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// The next field, of whatever type is asked for.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn field<T: Field<'a>>(&mut self) -> Result<T, Error> {
        T::read(self)
    }

    /// A length: none for -1.
    fn length(&mut self) -> Result<Option<usize>, Error> {
        match self.field::<i32>()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Error::Length(length)),
        }
    }

    /// Says that nothing may follow.
    ///
    /// # Errors
    /// [`Error::Behind`] if something does.
    pub fn end(&self) -> Result<(), Error> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Error::Behind(self.bytes.len())) }
    }
}

/// A field of a record, or a whole record: they are written alike.
pub trait Field<'a>: Sized {
    /// Reads one.
    ///
    /// # Errors
    /// See [`Error`].
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error>;

    /// Appends it to `out`.
    fn write(&self, out: &mut Vec<u8>);

    /// It alone, as bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The record in `bytes`, which hold nothing else.
    ///
    /// # Errors
    /// See [`Error`].
    fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let record = Self::read(&mut reader)?;
        reader.end()?;
        Ok(record)
    }
}

impl Field<'_> for i32 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array().map(Self::from_be_bytes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Field<'_> for i64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array().map(Self::from_be_bytes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Field<'_> for bool {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array::<1>().map(|[byte]| byte != 0)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

/// A buffer; none is -1 on the wire and not the same as an empty one.
impl<'a> Field<'a> for Option<&'a [u8]> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let Some(length) = reader.length()? else { return Ok(None) };
        reader.take(length).map(Some)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.map(<[u8]>::len), out);
        out.extend_from_slice(self.unwrap_or_default());
    }
}

/// Text; none, which is -1 on the wire, is read as empty.
impl<'a> Field<'a> for &'a str {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let bytes = reader.field::<Option<&'a [u8]>>()?.unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| Error::Utf8)
    }

    fn write(&self, out: &mut Vec<u8>) {
        Some(self.as_bytes()).write(out);
    }
}

impl<'a> Field<'a> for String {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        reader.field::<&str>().map(str::to_owned)
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.as_str().write(out);
    }
}

/// A vector; none, which is -1 on the wire, is read as empty.
impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let Some(count) = reader.length()? else { return Ok(Self::new()) };
        // No element takes less than four bytes.
        if count > reader.bytes.len() / 4 {
            return Err(Error::Length(i32::try_from(count).unwrap_or(i32::MAX)));
        }
        let mut items = Self::with_capacity(count.min(1024));
        for _ in 0..count {
            items.push(reader.field()?);
        }
        Ok(items)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_length(Some(self.len()), out);
        for item in self {
            item.write(out);
        }
    }
}

fn write_length(length: Option<usize>, out: &mut Vec<u8>) {
    let length = length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX));
    length.write(out);
}

/// Defines records whose fields are on the wire in the order in which they stand here.
macro_rules! records {
    ($(
        $(#[$meta:meta])*
        $name:ident $(<$life:lifetime>)? { $( $(#[$field_meta:meta])* $field:ident: $type:ty, )* }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        records!(@implement $name [$($life)?] { $( $field, )* });
    )*};
    (@implement $name:ident [$life:lifetime] { $( $field:ident, )* }) => {
        impl<$life> $crate::jute::codec::Field<$life> for $name<$life> {
            fn read(
                reader: &mut $crate::jute::codec::Reader<$life>,
            ) -> Result<Self, $crate::jute::codec::Error> {
                Ok(Self { $( $field: reader.field()?, )* })
            }

            fn write(&self, out: &mut Vec<u8>) {
                $( self.$field.write(out); )*
            }
        }
    };
    (@implement $name:ident [] { $( $field:ident, )* }) => {
        impl<'a> $crate::jute::codec::Field<'a> for $name {
            fn read(
                reader: &mut $crate::jute::codec::Reader<'a>,
            ) -> Result<Self, $crate::jute::codec::Error> {
                Ok(Self { $( $field: reader.field()?, )* })
            }

            fn write(&self, out: &mut Vec<u8>) {
                $( self.$field.write(out); )*
            }
        }
    };
}
pub(super) use records;
