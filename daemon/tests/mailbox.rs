//! The slot between capture and inference.

use proptest::prelude::*;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use ternwatch_daemon::mailbox::{Mailbox, Put, Taken};

const NO_TIME: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

fn take(mailbox: &Mailbox<u32>) -> Option<u32> {
    let mut item = 0;
    (mailbox.take(&mut item, NO_TIME) == Taken::Item).then_some(item)
}

#[test]
fn the_newest_item_wins_and_the_loss_is_told() {
    let mailbox = Mailbox::new(0);
    assert_eq!(mailbox.replace(&mut 1), Put::Stored);
    assert_eq!(mailbox.replace(&mut 2), Put::Replaced);
    assert_eq!(mailbox.replace(&mut 3), Put::Replaced);
    assert_eq!(take(&mailbox), Some(3));
    assert_eq!(take(&mailbox), None);
    assert_eq!(mailbox.replace(&mut 4), Put::Stored);
}

#[test]
fn buffers_are_exchanged_not_copied() {
    let mailbox = Mailbox::new(vec![0u8; 10]);
    let mut producer = vec![1u8; 20];
    let mut consumer = vec![2u8; 30];
    let sent = producer.as_ptr();
    mailbox.replace(&mut producer);
    assert_eq!(producer.len(), 10, "the spare comes back");
    assert_eq!(mailbox.take(&mut consumer, NO_TIME), Taken::Item);
    assert_eq!(consumer.as_ptr(), sent, "the very buffer arrives");
    mailbox.replace(&mut producer);
    assert_eq!(producer.len(), 30, "the consumer's buffer goes round");
}

#[test]
fn an_offer_waits_until_the_slot_is_free() {
    let mailbox = Arc::new(Mailbox::new(0));
    assert_eq!(mailbox.offer(&mut 1, NO_TIME), Put::Stored);
    let mut second = 2;
    assert_eq!(mailbox.offer(&mut second, NO_TIME), Put::TimedOut);
    assert_eq!(second, 2, "still with the caller");
    let waiting = thread::spawn({
        let mailbox = mailbox.clone();
        move || mailbox.offer(&mut second, LONG)
    });
    assert_eq!(take(&mailbox), Some(1));
    assert_eq!(waiting.join().expect("no panic"), Put::Stored);
    assert_eq!(take(&mailbox), Some(2));
}

#[test]
fn a_closed_mailbox_gives_its_last_item_and_wakes_everybody() {
    let mailbox = Arc::new(Mailbox::new(0));
    let waiting = thread::spawn({
        let mailbox = mailbox.clone();
        move || {
            let mut items = Vec::new();
            let mut item = 0;
            while mailbox.take(&mut item, LONG) == Taken::Item {
                items.push(item);
            }
            items
        }
    });
    assert_eq!(mailbox.offer(&mut 7, LONG), Put::Stored);
    mailbox.close();
    assert_eq!(waiting.join().expect("no panic"), [7]);
    assert_eq!(mailbox.replace(&mut 8), Put::Closed);
    assert_eq!(mailbox.offer(&mut 8, LONG), Put::Closed);
    assert_eq!(mailbox.take(&mut 0, LONG), Taken::Closed);
}

proptest! {
    /// Any order of operations behaves like a variable that is empty or holds the last item.
    #[test]
    fn it_behaves_like_an_option(operations in proptest::collection::vec(0u8..3, 0..100)) {
        let mailbox = Mailbox::new(0);
        let mut model: Option<u32> = None;
        for (number, operation) in (1u32..).zip(operations) {
            match operation {
                0 => {
                    let put = mailbox.replace(&mut number.clone());
                    prop_assert_eq!(put == Put::Replaced, model.is_some());
                    model = Some(number);
                }
                1 => {
                    let put = mailbox.offer(&mut number.clone(), NO_TIME);
                    prop_assert_eq!(put == Put::TimedOut, model.is_some());
                    model = model.or(Some(number));
                }
                _ => prop_assert_eq!(take(&mailbox), model.take()),
            }
        }
    }

    /// With a producer that never waits, a consumer sees growing numbers and always the last one.
    #[test]
    fn items_arrive_in_order_and_the_last_one_always(count in 1u32..2000) {
        let mailbox = Arc::new(Mailbox::new(0));
        let producer = thread::spawn({
            let mailbox = mailbox.clone();
            move || {
                let lost = (1..=count).filter(|n| mailbox.replace(&mut n.clone()) == Put::Replaced).count();
                mailbox.close();
                lost
            }
        });
        let mut seen = Vec::new();
        let mut item = 0;
        while mailbox.take(&mut item, LONG) == Taken::Item {
            seen.push(item);
        }
        let lost = producer.join().expect("no panic");
        prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(seen.last(), Some(&count));
        prop_assert_eq!(seen.len() + lost, count as usize, "every loss is told");
    }
}
