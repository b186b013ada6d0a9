//! Labels, all of whose values are known, and the macros that make an enum of them, or them of an
//! enum.

/// A label, with all values that it has, in the order of the samples.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) name: &'static str,
    pub(crate) values: &'static [&'static str],
}

/// A value of a label of which all values are known.
pub(crate) trait LabelValue: Copy {
    const LABEL: Label;

    /// Its place among the values of the label.
    fn place(self) -> usize;

    /// As it is written.
    fn as_str(self) -> &'static str {
        Self::LABEL.values[self.place()]
    }
}

/// The words of all values of an enum of another crate, in their order.
macro_rules! all_as_str {
    ($type:ty) => {{
        let mut words = [""; <$type>::ALL.len()];
        let mut index = 0;
        while index < words.len() {
            words[index] = <$type>::ALL[index].as_str();
            index += 1;
        }
        words
    }};
}

/// Defines an enum whose variants are all values of one label, in their order:
/// `Transport "transport" { Http1 = "http1", Http2 = "http2" }`.
macro_rules! labels {
    ($(#[$doc:meta])* $type:ident $name:literal { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum $type {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $crate::metrics::labels::LabelValue for $type {
            const LABEL: $crate::metrics::labels::Label =
                $crate::metrics::labels::Label { name: $name, values: &[$($value),*] };

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}
