use proptest::prelude::*;

use super::*;

const EPOCH: Epoch = Epoch { number: 1, nonce: 9 };

/// Transactions as lists of pages, each filled with its own number.
fn push_all(builder: &mut Builder, transactions: &[Vec<u32>], page_bytes: usize) -> Vec<Segment> {
    let mut cut = Vec::new();
    for (index, pages) in transactions.iter().enumerate() {
        for (at, page) in pages.iter().enumerate() {
            let commit_pages = if at + 1 == pages.len() { 100 } else { 0 };
            let data = vec![u8::try_from(index % 251).unwrap(); page_bytes];
            let frame = Frame { page: *page, commit_pages, data: &data };
            cut.extend(builder.push(frame, Millis(index as u64)).into_iter().map(|it| it.segment));
        }
    }
    cut
}

fn applied(segments: &[Segment], upto: Tx) -> Result<(Vec<(u32, u8)>, Position), SegmentError> {
    let mut follower = Follower::new(Position::begin(EPOCH, Tx(0)));
    let mut seen = Vec::new();
    for segment in segments {
        let segment = Segment::parse(segment.raw().to_vec())?;
        let follow = follower.follow::<SegmentError>(&segment, upto, |frame| {
            seen.push((frame.page, frame.data[0]));
            Ok(())
        })?;
        if follow == Follow::Done {
            break;
        }
    }
    Ok((seen, follower.position()))
}

fn merged(segments: &[Segment]) -> Segment {
    let mut merger = Merger::default();
    for segment in segments {
        merger.push(segment).unwrap();
    }
    assert_eq!(merger.bytes(), segments.iter().map(|it| it.raw().len()).sum::<usize>());
    merger.finish().unwrap()
}

fn builder() -> Builder {
    Builder::new("v", 512, Position::begin(EPOCH, Tx(0)), None)
}

proptest! {
    #[test]
    fn any_cut_and_any_merge_of_any_transactions_gives_them_all(
        transactions in proptest::collection::vec(proptest::collection::vec(1..50_u32, 1..5), 1..20),
        cuts in proptest::collection::vec(any::<bool>(), 20),
        upto in 0..20_u64,
    ) {
        let mut builder = builder();
        let mut segments = Vec::new();
        for (index, transaction) in transactions.iter().enumerate() {
            segments.extend(push_all(&mut builder, std::slice::from_ref(transaction), 512));
            if cuts[index] {
                segments.extend(builder.take(Millis(index as u64)).map(|it| it.segment));
            }
        }
        segments.extend(builder.take(Millis(99)).map(|it| it.segment));
        let expected: Vec<u32> = transactions.iter().take(usize::try_from(upto).unwrap()).flatten().copied().collect();
        let (seen, position) = applied(&segments, Tx(upto)).unwrap();
        prop_assert_eq!(seen.iter().map(|it| it.0).collect::<Vec<_>>(), expected);
        prop_assert_eq!(position.tx.0, upto.min(transactions.len() as u64));
        let one = merged(&segments);
        prop_assert_eq!(applied(&[one], Tx(upto)).unwrap(), (seen, position));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Segment::parse([MAGIC.as_slice(), &bytes].concat());
    }
}

#[test]
fn a_transaction_larger_than_a_segment_comes_in_parts() {
    let pages = |count: u32| (1..=count).collect::<Vec<u32>>();
    let per_cut = u32::try_from(CUT_BYTES / 65_536).unwrap();
    let mut builder = Builder::new("v", 65_536, Position::begin(EPOCH, Tx(0)), None);
    let mut segments = push_all(&mut builder, &[pages(1), pages(per_cut * 2 + 3), pages(2)], 65_536);
    segments.extend(builder.take(Millis(9)).map(|it| it.segment));
    let parts: Vec<_> =
        segments.iter().map(|it| (it.header.first.0, it.header.last.0, it.header.part)).collect();
    let part = |index, is_last| Part { index, is_last };
    assert_eq!(
        parts,
        [
            (1, 1, Part::WHOLE),
            (2, 2, part(0, false)),
            (2, 2, part(1, false)),
            (2, 2, part(2, true)),
            (3, 3, Part::WHOLE)
        ]
    );
    let (seen, position) = applied(&segments, Tx(3)).unwrap();
    assert_eq!((seen.len(), position.tx), (usize::try_from(per_cut * 2 + 6).unwrap(), Tx(3)));
    // A part is not left out, nor one put twice.
    for wrong in [vec![0, 1, 3, 4], vec![0, 1, 2, 2, 3, 4], vec![0, 1, 2, 4]] {
        let chosen: Vec<Segment> = wrong.iter().map(|index| segments[*index].clone()).collect();
        assert_eq!(applied(&chosen, Tx(3)), Err(SegmentError::Chain), "{wrong:?}");
    }
}

#[test]
fn a_segment_left_out_put_twice_or_changed_is_noticed() {
    let mut builder = builder();
    let mut segments = Vec::new();
    for pages in [[1, 2], [3, 4], [5, 6]] {
        push_all(&mut builder, &[pages.to_vec()], 512);
        segments.extend(builder.take(Millis(1)).map(|it| it.segment));
    }
    assert_eq!(applied(&[segments[0].clone(), segments[2].clone()], Tx(9)), Err(SegmentError::Chain));
    // Known transactions are checked and passed over.
    let again = [segments[0].clone(), segments[0].clone(), segments[1].clone()];
    assert_eq!(applied(&again, Tx(9)).unwrap().0.len(), 4);
    let mut raw = segments[1].raw().to_vec();
    *raw.last_mut().unwrap() ^= 1;
    let changed = Segment::parse(raw).unwrap();
    assert_eq!(applied(&[segments[0].clone(), changed], Tx(9)), Err(SegmentError::Chain));
}

#[test]
fn an_epoch_goes_on_from_another_only_where_it_began() {
    let mut first = builder();
    push_all(&mut first, &[vec![1], vec![2]], 512);
    let one = first.take(Millis(1)).unwrap().segment;
    let next = Epoch { number: 2, nonce: 4 };
    let mut second = Builder::new("v", 512, Position::begin(next, Tx(2)), Some(first.position()));
    let bridge = push_all(&mut second, &[vec![7, 8]], 512);
    assert_eq!(bridge.len(), 1);
    push_all(&mut second, &[vec![9]], 512);
    let after = second.take(Millis(2)).unwrap().segment;
    let (seen, position) = applied(&[one.clone(), bridge[0].clone(), after], Tx(9)).unwrap();
    assert_eq!(seen.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 2, 7, 8, 9]);
    assert_eq!((position.epoch, position.tx), (next, Tx(4)));
    assert_eq!(applied(&[bridge[0].clone()], Tx(9)), Err(SegmentError::Chain));
}

#[test]
fn a_time_is_a_transaction_that_had_been_seen_by_then() {
    let mut builder = builder();
    let mut segments = Vec::new();
    for time in [10, 20, 30] {
        push_all(&mut builder, &[vec![1], vec![2]], 512);
        segments.extend(builder.take(Millis(time)).map(|it| it.segment));
    }
    let one = merged(&segments);
    let seen = |time| one.seen_by(Millis(time)).map(|it| it.0);
    assert_eq!([seen(9), seen(10), seen(29), seen(99)], [None, Some(2), Some(4), Some(6)]);
}
