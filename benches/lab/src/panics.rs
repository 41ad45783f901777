//! Panics as values: one run that fails must not take the others with it.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static CAUGHT_HERE: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What `work` returns, or what it panicked with and where. Nothing is printed: that would tear the progress bar.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The place of a panic is known to the hook only. Panics elsewhere are told as before.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if CAUGHT_HERE.get() {
                let what = info.payload_as_str().unwrap_or("a panic without a message");
                let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
                MESSAGE.set(Some(what.to_owned() + &place.unwrap_or_default()));
            } else {
                before(info);
            }
        }));
    });
    let outer = CAUGHT_HERE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT_HERE.set(outer);
    result.map_err(|_| MESSAGE.take().unwrap_or_else(|| "a panic".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_and_where() {
        let told = caught(|| panic!("no server left")).unwrap_err();
        assert!(told.starts_with("no server left (") && told.contains("panics.rs:"), "{told}");
    }
}
