"""What the travel agency decides: one file a saga, each with its `saga`; here the services that carry it out."""

from towpath.saga import Participant

trips = Participant("trip")
flights = Participant("flight")
hotels = Participant("hotel")
payments = Participant("payment")
