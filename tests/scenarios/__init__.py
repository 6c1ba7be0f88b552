"""CraftyGoods' sagas, as conversations."""
