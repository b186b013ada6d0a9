//! What users receive, without sockets.

use tidings::testing::{expect_none, next};

use super::*;

#[tokio::test]
async fn an_order_is_confirmed_to_its_customer_alone() -> Result<()> {
    let (App { hub, .. }, _) = start().await?;
    let mut ann = hub.listen(stream_of("ann")).await?;
    let mut bob = hub.listen(stream_of("bob")).await?;
    order(State(hub.clone()), User("ann".to_owned()), "book".to_owned()).await?;
    assert_eq!(next(&mut ann).await.data, "Your book was ordered");
    expect_none(&mut bob).await;
    Ok(())
}

#[tokio::test]
async fn typing_pushes_no_notification_out_of_the_last_twenty() -> Result<()> {
    let (App { hub, .. }, _) = start().await?;
    let ann = || User("ann".to_owned());
    for number in 0..25 {
        hub.publish(NewEvent::new("user-ann", number.to_string())).await?;
    }
    let mut page = hub.listen(stream_of("bob")).await?;
    for _ in 0..30 {
        typing(State(hub.clone()), ann(), page.connection().to_string()).await?;
    }
    expect_none(&mut page).await;
    let mut joined = hub.listen(stream_of("ann")).await?;
    for number in 5..25 {
        assert_eq!(next(&mut joined).await.data, number.to_string());
    }
    expect_none(&mut joined).await;
    Ok(())
}
