"""What CraftyGoods decides: one file a saga, each with its `saga`; here the services that carry the decisions out."""

from towpath.saga import Participant

identity = Participant("identity")
catalog = Participant("catalog")
orders = Participant("order")
payments = Participant("payment")
