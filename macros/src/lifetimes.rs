//! The lifetimes of the item: names for those that a function leaves out, and the bounds that it implies.

use proc_macro2::Span;
use syn::visit_mut::{self, VisitMut};
use syn::{Generics, Ident, Lifetime, ParenthesizedGenericArguments, Type, TypeFnPtr, TypeReference};
use syn::{WherePredicate, parse_quote};

/// The name of an elided lifetime of the item.
const NAME: &str = "'item";

/// Gives a name to each elided lifetime in the type of the item, and to those of the output, by the compiler's rule: if the
/// item has exactly one lifetime, the output has that one. Returns the new names.
pub(crate) fn name_elided(generics: &Generics, item: &mut Type, output: &mut Type) -> Vec<Lifetime> {
    let mut of_item = Item { generics, new: Vec::new(), used: Vec::new() };
    of_item.visit_type_mut(item);
    if let [only] = of_item.used.as_slice() {
        Output { lifetime: only }.visit_type_mut(output);
    }
    of_item.new
}

/// Names the elided lifetimes of the item.
struct Item<'a> {
    generics: &'a Generics,
    new: Vec<Lifetime>,
    /// The different lifetimes of the item.
    used: Vec<Lifetime>,
}

impl Item<'_> {
    fn fresh(&mut self) -> Lifetime {
        let taken = |name: &str| self.generics.lifetimes().any(|known| known.lifetime.to_string() == name);
        let names = (self.new.len()..).map(|n| if n == 0 { NAME.to_owned() } else { format!("{NAME}_{n}") });
        let untaken =
            names.filter(|name| !taken(name) && self.new.iter().all(|new| new.to_string() != *name));
        let name = untaken.take(1).next().unwrap_or_else(|| NAME.to_owned());
        let lifetime = Lifetime::new(&name, Span::call_site());
        self.new.push(lifetime.clone());
        self.used.push(lifetime.clone());
        lifetime
    }
}

impl VisitMut for Item<'_> {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        if reference.lifetime.is_none() {
            reference.lifetime = Some(self.fresh());
            self.visit_type_mut(&mut reference.elem);
        } else {
            visit_mut::visit_type_reference_mut(self, reference);
        }
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            *lifetime = self.fresh();
            return;
        }
        let is_parameter = self.generics.lifetimes().any(|known| known.lifetime == *lifetime);
        if (is_parameter || lifetime.ident == "static") && !self.used.contains(lifetime) {
            self.used.push(lifetime.clone());
        }
    }

    // Lifetimes that are left out here belong to the function pointer, or to `Fn(&str)`, and not to the item.
    fn visit_type_fn_ptr_mut(&mut self, _: &mut TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut ParenthesizedGenericArguments) {}
}

/// Gives the elided lifetimes of the output their name.
struct Output<'a> {
    lifetime: &'a Lifetime,
}

impl VisitMut for Output<'_> {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        reference.lifetime.get_or_insert_with(|| self.lifetime.clone());
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            *lifetime = self.lifetime.clone();
        }
    }

    fn visit_type_fn_ptr_mut(&mut self, _: &mut TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut ParenthesizedGenericArguments) {}
}

/// Returns the bounds that a function has by the references in the type of its argument: `T: 'a` by `&'a T`. In `run`,
/// the type of the item is not that of an argument, so the bounds are written out.
pub(crate) fn implied_bounds(generics: &Generics, item: &Type) -> Vec<WherePredicate> {
    let mut references = References { generics, bounds: Vec::new() };
    references.visit_type_mut(&mut item.clone());
    references.bounds
}

struct References<'a> {
    generics: &'a Generics,
    bounds: Vec<WherePredicate>,
}

impl VisitMut for References<'_> {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        let mut parameters = Parameters { generics: self.generics, any: false };
        parameters.visit_type_mut(&mut reference.elem);
        if let (Some(lifetime), true) = (&reference.lifetime, parameters.any) {
            let referent = &reference.elem;
            self.bounds.push(parse_quote!(#referent: #lifetime));
        }
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_type_fn_ptr_mut(&mut self, _: &mut TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut ParenthesizedGenericArguments) {}
}

/// Finds lifetimes, and the type parameters of a function.
struct Parameters<'a> {
    generics: &'a Generics,
    any: bool,
}

impl VisitMut for Parameters<'_> {
    fn visit_ident_mut(&mut self, ident: &mut Ident) {
        self.any |= self.generics.type_params().any(|parameter| parameter.ident == *ident);
    }

    fn visit_lifetime_mut(&mut self, _: &mut Lifetime) {
        self.any = true;
    }

    fn visit_type_fn_ptr_mut(&mut self, _: &mut TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut ParenthesizedGenericArguments) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens;
    use syn::parse::Parser;
    use syn::punctuated::Punctuated;
    use syn::{Token, parse_str};

    #[test]
    fn elided_lifetimes_are_those_that_the_compiler_sees() {
        let table = [
            ("<>", "String", "Result<(), E>", "String", "Result<(), E>", 0),
            ("<>", "&str", "Result<&str, E>", "&'item str", "Result<&'item str, E>", 1),
            ("<>", "Cow<'_, str>", "Result<Row<'_>, E>", "Cow<'item, str>", "Result<Row<'item>, E>", 1),
            ("<>", "(&str, &u8)", "Result<(), E>", "(&'item str, &'item_1 u8)", "Result<(), E>", 2),
            ("<'a>", "&'a str", "Result<&str, E>", "&'a str", "Result<&'a str, E>", 0),
            ("<'item>", "&'item &str", "Result<(), E>", "&'item &'item_1 str", "Result<(), E>", 1),
            ("<'item>", "&str", "Result<&'item u8, E>", "&'item_1 str", "Result<&'item u8, E>", 1),
            ("<>", "&'static str", "Result<&str, E>", "&'static str", "Result<&'static str, E>", 0),
            ("<>", "fn(&str) -> &str", "Result<(), E>", "fn(&str) -> &str", "Result<(), E>", 0),
            (
                "<>",
                "&dyn Fn(&u8) -> &u8",
                "Result<&u8, E>",
                "&'item dyn Fn(&u8) -> &u8",
                "Result<&'item u8, E>",
                1,
            ),
        ];
        let text = |code: &dyn ToTokens| code.to_token_stream().to_string();
        let same =
            |code: &Type, expected: &str| assert_eq!(text(code), text(&parse_str::<Type>(expected).unwrap()));
        for (generics, item, output, named_item, named_output, new) in table {
            let (mut item, mut output) = (parse_str(item).unwrap(), parse_str(output).unwrap());
            let names = name_elided(&parse_str(generics).unwrap(), &mut item, &mut output);
            same(&item, named_item);
            same(&output, named_output);
            assert_eq!(names.len(), new, "{named_item}");
        }
    }
    #[test]
    fn a_reference_to_a_parameter_implies_its_bound() {
        let generics = parse_str("<'a, T, U>").unwrap();
        let table = [
            ("T", ""),
            ("&'a str", ""),
            ("&'a T", "T: 'a"),
            ("&'a [(T, U)]", "[(T, U)]: 'a"),
            ("&'a &'item str", "&'item str: 'a"),
            ("&'a Box<dyn Fn(&u8)>", ""),
            ("&'a &'item Vec<T>", "&'item Vec<T>: 'a, Vec<T>: 'item"),
            ("fn(&'a T)", ""),
        ];
        for (item, bounds) in table {
            let found = implied_bounds(&generics, &parse_str(item).unwrap());
            let expected =
                Punctuated::<WherePredicate, Token![,]>::parse_terminated.parse_str(bounds).unwrap();
            assert_eq!(found.len(), expected.len(), "{item}");
            for (found, expected) in found.iter().zip(&expected) {
                let (found, expected) = (found.to_token_stream(), expected.to_token_stream());
                assert_eq!(found.to_string(), expected.to_string(), "{item}");
            }
        }
    }
}
