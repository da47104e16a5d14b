"""Explicit Runge-Kutta methods as rows of numbers, with their sources.

"HNW" is Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, second edition, Springer 1993.
Dense output without another source is the only polynomial of degree `dense_order` in the method's own slopes
that satisfies the order conditions of HNW, section II.6, up to that order.
"""

from node_jax.methods.explicit import ExplicitRK


def _nested(b, last, *rows):
    """Expand `x (F0 + (1-x)(F1 + x(F2 + (1-x)(F3 + x(F4 + ...)))))` in powers of `x`, one row for each slope.

    `F0`, `F1`, `F2` make the cubic Hermite interpolation of a step that ends with slope `last`; `rows` holds
    the weights of `F3`, `F4` and so on. HNW's codes evaluate dense output in this form.
    """
    weights = []
    for i in range(max(len(b), last + 1, *map(len, rows))):
        total, first, end = b[i] if i < len(b) else 0.0, float(i == 0), float(i == last)
        f = [total, first - total, 2.0 * total - first - end, *(row[i] for row in rows)]
        w = [f.pop()]
        for k in reversed(range(len(f))):
            raised = [0.0, *w]  # x w(x)
            w = raised if k % 2 else [p - q for p, q in zip([*w, 0.0], raised, strict=True)]
            w[0] += f[k]
        weights.append(tuple(w))
    return tuple(weights)


# Euler 1768; HNW, section I.7.
euler = ExplicitRK(1, c=(0.0,), a=((),), b=(1.0,), dense=((1.0,),), dense_order=1, name="euler")
"""Euler's method of order 1 (Euler, 1768).

One evaluation a step. It has no error estimate: use it with `Fixed` or `Grid`.
"""

# Runge 1895; HNW, Table II.1.1. The error is the difference from Euler's method.
midpoint = ExplicitRK(
    2,
    c=(0.0, 0.5),
    a=((), (0.5,)),
    b=(0.0, 1.0),
    b_error=(-1.0, 1.0),
    error_order=2,
    dense=((1.0, -1.0), (0.0, 1.0)),
    dense_order=2,
    name="midpoint",
)
"""The explicit midpoint rule of order 2 (Runge, 1895).

Two evaluations a step, with an error estimate.
"""

# The explicit trapezoidal rule, often named after Heun 1900. The error is the difference from Euler's method.
heun = ExplicitRK(
    2,
    c=(0.0, 1.0),
    a=((), (1.0,)),
    b=(0.5, 0.5),
    b_error=(-0.5, 0.5),
    error_order=2,
    dense=((1.0, -0.5), (0.0, 0.5)),
    dense_order=2,
    name="heun",
)
"""The explicit trapezoidal rule of order 2 (Heun, 1900).

Two evaluations a step, with an error estimate.
"""

# Ralston, Math. Comp. 16 (1962) 431-437: the least error bound with two stages. The error is the difference
# from Euler's method.
ralston = ExplicitRK(
    2,
    c=(0.0, 2 / 3),
    a=((), (2 / 3,)),
    b=(1 / 4, 3 / 4),
    b_error=(-3 / 4, 3 / 4),
    error_order=2,
    dense=((1.0, -3 / 4), (0.0, 3 / 4)),
    dense_order=2,
    name="ralston",
)
"""The method of order 2 with the least error bound of two stages (Ralston, 1962).

Two evaluations a step, with an error estimate.
"""

# Kutta 1901; HNW, Table II.1.2, left.
rk4 = ExplicitRK(
    4,
    c=(0.0, 0.5, 0.5, 1.0),
    a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    dense=((1.0, -3 / 2, 2 / 3), (0.0, 1.0, -2 / 3), (0.0, 1.0, -2 / 3), (0.0, -1 / 2, 2 / 3)),
    dense_order=3,
    name="rk4",
)
"""The classical Runge-Kutta method of order 4 (Kutta, 1901).

Four evaluations a step. It has no error estimate: use it with `Fixed` or `Grid`.
"""

# Kutta 1901; HNW, Table II.1.2, right.
rk38 = ExplicitRK(
    4,
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    dense=((1.0, -15 / 8, 1.0), (0.0, 15 / 8, -3 / 2), (0.0, 3 / 8), (0.0, -3 / 8, 1 / 2)),
    dense_order=3,
    name="rk38",
)
"""The 3/8 rule of order 4 (Kutta, 1901).

Four evaluations a step. It has no error estimate: use it with `Fixed` or `Grid`.
"""

# Bogacki and Shampine, Appl. Math. Lett. 2 (1989) 321-325. Dense output: cubic Hermite interpolation.
_b_bosh3 = (2 / 9, 1 / 3, 4 / 9)
bosh3 = ExplicitRK(
    3,
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    a=((), (1 / 2,), (0.0, 3 / 4), _b_bosh3),
    b=_b_bosh3,
    b_error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    dense=_nested(_b_bosh3, 3),
    dense_order=3,
    name="bosh3",
)
"""The pair of order 3 for loose tolerances (Bogacki and Shampine, 1989).

Three evaluations a step, with an error estimate. It is `RK23` of SciPy.
"""

# fmt: off
# Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19-26; HNW, Table II.5.2. Dense output: Shampine,
# Math. Comp. 46 (1986) 135-150, in the form of DOPRI5 in HNW.
_b_dopri5 = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
dopri5 = ExplicitRK(
    5,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _b_dopri5,
    ),
    b=_b_dopri5,
    b_error=(71 / 86400, 0.0, -142 / 50085, 71 / 2880, -5751 / 169600, 44 / 1575, -1 / 60),
    dense=_nested(_b_dopri5, 6, (
        -12715105075 / 11282082432, 0.0, 87487479700 / 32700410799, -10690763975 / 1880347072,
        701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423,
    )),
    dense_order=4,
    name="dopri5",
)
"""The pair of order 5 that SciPy calls `RK45` (Dormand and Prince, 1980).

Six evaluations a step, with an error estimate.
"""

# Tsitouras, Comput. Math. Appl. 62 (2011) 770-775: the pair and its interpolant, expanded in powers.
_b_tsit5 = (
    0.09646076681806523, 0.01, 0.4798896504144996, 1.3790085741037419, -3.2900695154360807, 2.324710524099774,
)
tsit5 = ExplicitRK(
    5,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        _b_tsit5,
    ),
    b=_b_tsit5,
    b_error=(
        0.0017800110522257714, 0.0008164344596567469, -0.007880878010261995, 0.1447110071732629,
        -0.5823571654525552, 0.45808210592918697, -1 / 66,
    ),
    dense=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.1317, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
    dense_order=4,
    name="tsit5",
)
"""The default: a pair of order 5 (Tsitouras, 2011).

Six evaluations a step, with an error estimate.
"""

# DOP853 of HNW, sections II.5 (the method), II.6 (dense output) and II.10 (the two error estimates: "er" and
# "bhh"), with the numbers of the code dop853.f. Counted from 0, slope 12 is that at the end of the step and
# slopes 13 to 15 serve dense output only.
_b_dopri8 = (
    0.054293734116568765, 0.0, 0.0, 0.0, 0.0, 4.450312892752409, 1.8915178993145003, -5.801203960010585,
    0.3111643669578199, -0.1521609496625161, 0.20136540080403034, 0.04471061572777259,
)
dopri8 = ExplicitRK(
    8,
    c=(
        0.0, 0.05260015195876773, 0.0789002279381516, 0.1183503419072274, 0.2816496580927726, 1 / 3, 1 / 4,
        4 / 13, 0.6512820512820513, 3 / 5, 6 / 7, 1.0, 1.0,
    ),
    a=(
        (),
        (0.05260015195876773,),
        (0.0197250569845379, 0.0591751709536137),
        (0.02958758547680685, 0.0, 0.08876275643042054),
        (0.2413651341592667, 0.0, -0.8845494793282861, 0.924834003261792),
        (1 / 27, 0.0, 0.0, 0.17082860872947386, 0.12546768756682242),
        (0.037109375, 0.0, 0.0, 0.17025221101954405, 0.06021653898045596, -0.017578125),
        (0.03709200011850479, 0.0, 0.0, 0.17038392571223998, 0.10726203044637328, -0.015319437748624402,
         0.008273789163814023),
        (0.6241109587160757, 0.0, 0.0, -3.3608926294469414, -0.868219346841726, 27.59209969944671,
         20.154067550477894, -43.48988418106996),
        (0.47766253643826434, 0.0, 0.0, -2.4881146199716677, -0.590290826836843, 21.230051448181193,
         15.279233632882423, -33.28821096898486, -0.020331201708508627),
        (-0.9371424300859873, 0.0, 0.0, 5.186372428844064, 1.0914373489967295, -8.149787010746927,
         -18.52006565999696, 22.739487099350505, 2.4936055526796523, -3.0467644718982196),
        (2.273310147516538, 0.0, 0.0, -10.53449546673725, -2.0008720582248625, -17.9589318631188,
         27.94888452941996, -2.8589982771350235, -8.87285693353063, 12.360567175794303, 0.6433927460157636),
        _b_dopri8,
    ),
    b=_b_dopri8,
    b_error=(
        0.01312004499419488, 0.0, 0.0, 0.0, 0.0, -1.2251564463762044, -0.4957589496572502,
        1.6643771824549864, -0.35032884874997366, 0.3341791187130175, 0.08192320648511571,
        -0.022355307863886294,
    ),
    b_error_low=(
        -0.18980075407240762, 0.0, 0.0, 0.0, 0.0, 4.450312892752409, 1.8915178993145003, -5.801203960010585,
        -0.4226823213237919, -0.1521609496625161, 0.20136540080403034, 0.02265179219836082,
    ),
    c_dense=(1 / 10, 1 / 5, 7 / 9),
    a_dense=(
        (0.056167502283047954, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25350021021662483, -0.2462390374708025,
         -0.12419142326381637, 0.15329179827876568, 0.00820105229563469, 0.007567897660545699, -0.008298),
        (0.03183464816350214, 0.0, 0.0, 0.0, 0.0, 0.028300909672366776, 0.053541988307438566,
         -0.05492374857139099, 0.0, 0.0, -0.00010834732869724932, 0.0003825710908356584,
         -0.00034046500868740456, 0.1413124436746325),
        (-0.42889630158379194, 0.0, 0.0, 0.0, 0.0, -4.697621415361164, 7.683421196062599, 4.06898981839711,
         0.3567271874552811, 0.0, 0.0, 0.0, -0.0013990241651590145, 2.9475147891527724, -9.15095847217987),
    ),
    dense=_nested(
        _b_dopri8,
        12,
        (-8.428938276109013, 0.0, 0.0, 0.0, 0.0, 0.5667149535193777, -3.0689499459498917, 2.38466765651207,
         2.117034582445028, -0.871391583777973, 2.2404374302607883, 0.6315787787694688, -0.08899033645133331,
         18.148505520854727, -9.194632392478356, -4.436036387594894),
        (10.427508642579134, 0.0, 0.0, 0.0, 0.0, 242.28349177525817, 165.20045171727028, -374.5467547226902,
         -22.113666853125306, 7.733432668472264, -30.674084731089398, -9.332130526430229, 15.697238121770845,
         -31.139403219565178, -9.35292435884448, 35.81684148639408),
        (19.985053242002433, 0.0, 0.0, 0.0, 0.0, -387.0373087493518, -189.17813819516758, 527.8081592054236,
         -11.57390253995963, 6.8812326946963, -1.0006050966910838, 0.7777137798053443, -2.778205752353508,
         -60.19669523126412, 84.32040550667716, 11.99229113618279),
        (-25.69393346270375, 0.0, 0.0, 0.0, 0.0, -154.18974869023643, -231.5293791760455, 357.6391179106141,
         93.40532418362432, -37.45832313645163, 104.0996495089623, 29.8402934266605, -43.53345659001114,
         96.32455395918828, -39.17726167561544, -149.72683625798564),
    ),
    dense_order=7,
    name="dopri8",
)
"""The method DOP853 of order 8, for tolerances of 1e-9 and below (Hairer, Norsett and Wanner, Solving ODEs I, II.5).

Twelve evaluations a step, with an error estimate. Dense output of order 7 takes three more.
"""
# fmt: on

METHODS = (euler, midpoint, heun, ralston, rk4, rk38, bosh3, dopri5, tsit5, dopri8)
