"""Several workers in one repository: one module each, and one for the events they share.

holdfast run shop.orders:worker
holdfast run shop.billing:worker
holdfast run shop.mail:worker
holdfast publish order.placed '{"order_id": "o-1", "email": "a@example.com", "cents": 950}'

Each is deployed, scaled and stopped by itself: one image, three commands. They import the events and never each other.
"""
