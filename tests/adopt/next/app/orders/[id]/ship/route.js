import { orders } from '../../../../lib/orders';
import { currentUser } from '../../../../lib/session';

export async function POST(request, { params }) {
  if ((await currentUser()) !== 'shop') return new Response(null, { status: 403 });
  const order = orders[(await params).id];
  if (!order) return new Response(null, { status: 404 });
  order.state = 'shipped';
  return new Response(null, { status: 204 });
}
