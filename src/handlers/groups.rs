//! What the handlers of groups share: from a request to the coordinators of its groups, each core asked once.

use std::collections::BTreeMap;

use coord::group::{Answer, Request as GroupRequest};
use net::error_code::ErrorCode;
use rt::CoreId;

use super::{Request, Unanswerable};
use crate::groups::request::read;
use crate::groups::{self, GroupAsk, GroupPart};
use crate::shard::join::join_boxed;
use crate::shard::{Asking, mail};

type ByOwner = BTreeMap<CoreId, Vec<GroupPart>>;

/// The answer for each group of the request, in its order.
pub async fn ask(request: &Request<'_>) -> Result<Vec<Answer>, Unanswerable> {
    let (by_owner, codes) = plan(request)?;
    let answers = ask_owners(request, by_owner, codes.len()).await;
    refuse_the_rest(request, answers, &codes)
}

/// Which core to ask for which groups, and what is answered for a group where nobody answers. What was decoded ends
/// here: members wait by the thousand, and their requests are theirs to keep.
fn plan(request: &Request<'_>) -> Result<(ByOwner, Vec<ErrorCode>), Unanswerable> {
    let requests = read(&request.header, request.body)?;
    let mut by_owner = ByOwner::new();
    let mut codes = Vec::with_capacity(requests.len());
    for (place, one) in requests.iter().enumerate() {
        codes.push(match groups::locate(request.shard, one.group().unwrap_or_default()) {
            Ok((partition, owner)) => {
                by_owner.entry(owner).or_default().push(GroupPart { place, partition });
                ErrorCode::NotCoordinator
            }
            Err(code) => code,
        });
    }
    Ok((by_owner, codes))
}

/// Only where something was not answered is the request read again.
fn refuse_the_rest(
    request: &Request<'_>,
    answers: Vec<Option<Box<Answer>>>,
    codes: &[ErrorCode],
) -> Result<Vec<Answer>, Unanswerable> {
    if answers.iter().all(Option::is_some) {
        return Ok(answers.into_iter().flatten().map(|answer| *answer).collect());
    }
    let requests = read(&request.header, request.body)?;
    let refused = |((answer, one), code): ((Option<Box<Answer>>, GroupRequest<'_>), &ErrorCode)| match answer
    {
        Some(answer) => *answer,
        None => one.refused(*code),
    };
    Ok(answers.into_iter().zip(requests).zip(codes).map(refused).collect())
}

/// The answer to a request about one group. Members wait by the thousand, so it keeps no lists of what is one.
pub async fn ask_one(request: &Request<'_>) -> Result<Answer, Unanswerable> {
    let begun = begin_one(request)?;
    let answer = match begun {
        Ok(asking) => the_answer(asking.await).ok_or(ErrorCode::NotCoordinator),
        Err(code) => Err(code),
    };
    answer.or_else(|code| Ok(the_one(request)?.refused(code)))
}

/// Asks who owns the group, if there is one.
fn begin_one<'a>(request: &Request<'a>) -> Result<Result<Asking<'a>, ErrorCode>, Unanswerable> {
    let one = the_one(request)?;
    let located = groups::locate(request.shard, one.group().unwrap_or_default());
    Ok(located.map(|(partition, owner)| ask_owner(request, owner, vec![GroupPart { place: 0, partition }])))
}

fn the_one<'a>(request: &Request<'a>) -> Result<GroupRequest<'a>, Unanswerable> {
    read(&request.header, request.body)?.pop().ok_or(Unanswerable)
}

fn the_answer(answer: mail::Answer) -> Option<Answer> {
    let mail::Answer::Group(mut found) = answer else { return None };
    found.pop()?.answer.map(|answer| *answer)
}

/// Asks every partition of groups for its list; None from those that did not answer.
pub async fn ask_all(request: &Request<'_>) -> Vec<Option<Box<Answer>>> {
    let homes = groups::homes(request.shard);
    let count = homes.len();
    let mut by_owner = ByOwner::new();
    for (place, (partition, owner)) in homes.into_iter().enumerate() {
        by_owner.entry(owner).or_default().push(GroupPart { place, partition });
    }
    ask_owners(request, by_owner, count).await
}

/// So many answers, each in its place; None where nobody answered.
async fn ask_owners(request: &Request<'_>, by_owner: ByOwner, count: usize) -> Vec<Option<Box<Answer>>> {
    let asked = join_boxed(by_owner.into_iter().map(|(owner, parts)| ask_owner(request, owner, parts))).await;
    let mut answers: Vec<Option<Box<Answer>>> = Vec::new();
    answers.resize_with(count, || None);
    for answer in asked {
        let mail::Answer::Group(found) = answer else { continue };
        found.into_iter().for_each(|found| answers[found.place] = found.answer);
    }
    answers
}

fn ask_owner<'a>(request: &Request<'a>, owner: CoreId, parts: Vec<GroupPart>) -> Asking<'a> {
    let ask = GroupAsk { frame: request.frame.clone(), client: request.client, parts };
    request.shard.ask(owner, mail::Ask::Group(Box::new(ask)))
}
