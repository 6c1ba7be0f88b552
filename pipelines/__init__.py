"""What CraftyGoods moves: the services that own its data, and the views over what they say."""
