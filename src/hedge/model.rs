//! Every interleaving of hedges, retries and callers who give up over one budget.

use std::sync::{
    Arc,
    // Not loom's: the models keep their books in the order in which things happen, and add no order of their own.
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use loom::thread;

use super::{HedgeOptions, pace::Pace, race::Paid};
use crate::{
    Ratio,
    budget::{Budget, BudgetOptions},
};

#[test]
fn hedges_that_are_sent_and_given_up_and_retries_never_draw_more_than_there_is() {
    loom::model(|| {
        let epoch = crate::clock::now();
        let budget = Budget::starting(BudgetOptions::default().share(Ratio::ZERO).reserve(1), epoch).unwrap();
        let pace = Arc::new(Pace::new(&HedgeOptions::default().share(Ratio::ONE), epoch).unwrap());
        let sent = Arc::new(AtomicUsize::new(0));
        pace.waited_for(epoch);
        // Takes what a hedge costs, and sends it or not.
        let hedge = |sends: bool| {
            let (budget, pace, sent) = (budget.clone(), pace.clone(), sent.clone());
            move || {
                let Some(share) = pace.withdraw(epoch) else { return };
                let Some(budget) = budget.withdraw(epoch) else { return };
                let paid = Paid { share, budget };
                if sends {
                    sent.fetch_add(1, SeqCst);
                    paid.spend_on(&mut None);
                }
            }
        };
        let (sends, gives_up) = (thread::spawn(hedge(true)), thread::spawn(hedge(false)));
        if let Some(withdrawal) = budget.withdraw(epoch) {
            sent.fetch_add(1, SeqCst);
            withdrawal.spend();
        }
        sends.join().unwrap();
        gives_up.join().unwrap();
        let sent = sent.load(SeqCst);
        assert!(sent <= 1, "more than there is");
        assert_eq!(sent + budget.available(epoch) as usize, 1, "nothing is lost, and nothing is made");
    });
}
