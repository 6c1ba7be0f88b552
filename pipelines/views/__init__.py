"""The views of CraftyGoods: tables folded from its topics."""
