//! Tokens, and finding the one that a request presents without telling by the time it takes which one or whether.

use std::{fmt, sync::Arc};

use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{
    grant::Grant,
    hash::{Hash, Hashed},
    presented::Presented,
};

/// One token of the file.
pub(super) struct Token {
    pub(super) grant: Grant,
    pub(super) hash: Hash,
}

/// All tokens of a file.
pub(super) struct Tokens(pub(super) Vec<Token>);

/// What was found of a credential.
pub(super) struct Found<'a> {
    pub(super) token: Option<&'a Token>,
    /// The token of the name that was given, though its secret may be another.
    pub(super) named: Option<Arc<str>>,
}

impl Tokens {
    /// Compares with every token, whether one was found before or not.
    pub(super) fn find(&self, presented: &Presented) -> Found<'_> {
        let secret = Hashed::new(&presented.secret);
        let name = presented.name.as_deref().unwrap_or_default();
        let has_name = Choice::from(u8::from(presented.name.is_some()));
        let (mut found, mut named) = (u32::MAX, u32::MAX);
        for (number, token) in (0_u32..).zip(&self.0) {
            // Names are no secrets; that their lengths show in time tells nothing that a list of them would not.
            let same_name = token.grant.name.as_bytes().ct_eq(name) & has_name;
            named.conditional_assign(&number, same_name);
            found.conditional_assign(&number, secret.is(&token.hash) & (same_name | !has_name));
        }
        let at = |number: u32| self.0.get(usize::try_from(number).unwrap_or(usize::MAX));
        Found {
            token: at(found),
            named: at(named).map(|token| Arc::clone(&token.grant.name)),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|token| &token.grant.name);
        formatter.debug_list().entries(names).finish()
    }
}
